"""The rules as values in, values out: imports no database, reads no clock, changes nothing."""
