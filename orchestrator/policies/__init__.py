"""Pure judgements: evidence in, verdict out; no SQL, no files, no clock."""
