"""The store in PostgreSQL: reads, locks, deletes and records. SQL proposes; the policy decides."""
