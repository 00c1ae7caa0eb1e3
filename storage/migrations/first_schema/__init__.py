"""The tables of the first schema, by subject; the revision 0001 makes them in the order of their references."""
