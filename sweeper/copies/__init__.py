"""Copies of the data elsewhere, such as vectors and search indexes: they are told what was purged."""
