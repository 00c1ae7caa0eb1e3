"""Storage remembers: the lineage in SQL, artifacts by their hash, snapshots of batches."""
