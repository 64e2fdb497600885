-- The accounts of a batch, with the further columns that the policy reads.
SELECT a.id::text AS id, a.created_at, a.closed_at, $columns AS columns
FROM accounts a
WHERE a.id = ANY(CAST(:ids AS $account[]))
