"""Everything that talks to PostgreSQL: reads, locks, deletes and records. SQL proposes records; the policy decides."""
