-- The key at which the next range of accounts ends.
SELECT a.id::text AS id FROM accounts a WHERE a.id IS NOT NULL AND $after ORDER BY a.id OFFSET :accounts LIMIT 1
