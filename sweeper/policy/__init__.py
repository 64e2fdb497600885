"""The retention policy: what it may say, and what it says about a record. Imports no database, reads no clock."""
