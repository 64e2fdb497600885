-- One rule that needs nothing but the conversation's own row.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM conversations c
WHERE $conversations AND $anchor <= $horizon AND $conditions
