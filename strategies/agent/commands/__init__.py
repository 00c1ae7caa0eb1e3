"""What ``python -m strategies.agent`` carries out, a file a command.

The same collection or training into the same folder goes on where it was interrupted, and so does a comparison that
names a folder.
"""
