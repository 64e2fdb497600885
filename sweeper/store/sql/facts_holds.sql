-- The legal holds that may reach a record of a batch, under the record's own id: they name it, its account, or everything.
SELECT h.matter, a.id AS account_id, NULL AS conversation_id, h.placed_at, h.released_at
FROM unnest(CAST(:accounts AS text[])) AS a (id)
JOIN sweeper.legal_holds h ON sweeper.spelling(h.account_id) = sweeper.spelling(a.id)
UNION ALL
SELECT h.matter, NULL, c.id, h.placed_at, h.released_at
FROM unnest(CAST(:conversations AS text[])) AS c (id)
JOIN sweeper.legal_holds h ON sweeper.spelling(h.conversation_id) = sweeper.spelling(c.id)
UNION ALL
SELECT h.matter, NULL, NULL, h.placed_at, h.released_at
FROM sweeper.legal_holds h
WHERE h.account_id IS NULL AND h.conversation_id IS NULL
