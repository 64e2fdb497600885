"""The daemon: a scheduler, the duties that it does, and what it answers over HTTP."""
