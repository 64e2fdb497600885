"""PostgreSQL: what is read, locked, deleted and recorded. SQL proposes; the core decides."""
