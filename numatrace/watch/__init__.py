"""The live view of a running server: a rolling model of what `record` sees, and its pictures."""
