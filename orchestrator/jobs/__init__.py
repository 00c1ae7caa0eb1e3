"""Jobs: queued in SQL, given slots, run by an executor in a directory, supervised until their result is stored."""
