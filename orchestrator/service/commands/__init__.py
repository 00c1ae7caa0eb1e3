"""Acting: every change that a face may ask for. A command names its actor and leaves its trace in the events."""
