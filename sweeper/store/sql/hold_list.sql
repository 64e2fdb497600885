-- The legal holds, those in force first.
SELECT id, matter, account_id, conversation_id, placed_at, released_at
FROM sweeper.legal_holds WHERE :all OR released_at IS NULL
ORDER BY released_at IS NOT NULL, id
