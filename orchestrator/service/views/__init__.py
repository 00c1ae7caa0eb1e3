"""Reading: every question that a face may ask. A view opens its own read transaction and changes nothing."""
