-- One rule whose anchor, condition or period is the account's: its accounts first, then their conversations.
SELECT c.account_id, c.id, c.last_activity_at, c.deleted_at
FROM accounts a
JOIN conversations c ON c.account_id = a.id
WHERE $accounts AND $anchor <= $horizon AND $conditions
