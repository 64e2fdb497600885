"""The daemon: a scheduler, its jobs, and an HTTP endpoint."""
