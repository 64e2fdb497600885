-- One rule whose anchor, condition or period is the account's: its accounts first, then their conversations.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM accounts a
CROSS JOIN LATERAL (SELECT k.* FROM conversations k WHERE k.account_id = a.id OFFSET 0) AS c
WHERE $accounts AND $anchor <= $horizon AND $conditions
