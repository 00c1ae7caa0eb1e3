"""The flow: seven steps, a file each, and what they share."""
