-- The legal holds that may reach a record of a batch: they name its account, itself, or nothing and so everything.
SELECT h.matter, lower(btrim(h.account_id)) AS account_id, lower(btrim(h.conversation_id)) AS conversation_id,
       h.placed_at, h.released_at
FROM sweeper.legal_holds h
WHERE lower(btrim(h.account_id)) = ANY(CAST(:accounts AS text[]))
   OR lower(btrim(h.conversation_id)) = ANY(CAST(:conversations AS text[]))
   OR (h.account_id IS NULL AND h.conversation_id IS NULL)
