"""Alembic revisions of the sweeper's own tables."""
