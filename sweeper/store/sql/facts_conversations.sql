-- The conversations of a batch as they are now, with the further columns that the policy reads.
SELECT c.id::text AS id,
       c.account_id::text AS account_id,
       c.kind::text AS kind,
       c.platform::text AS platform,
       c.incognito,
       c.zero_retention,
       c.created_at,
       c.last_activity_at,
       c.deleted_at,
       c.restored_at,
       c.flagged_at,
       $columns AS columns
FROM conversations c
WHERE c.id = ANY(CAST(:ids AS $conversation[]))
