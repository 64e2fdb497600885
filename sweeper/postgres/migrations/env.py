"""Alembic's entry: runs the revisions on the connection that `sweeper migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="schema_version", version_table_schema="sweeper")
with context.begin_transaction():
    context.run_migrations()
