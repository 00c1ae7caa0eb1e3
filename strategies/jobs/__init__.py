"""The job process: reads ``job.json`` in its directory, writes there and nowhere else, knows no SQL."""
