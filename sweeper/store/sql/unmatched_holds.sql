SELECT h.id, h.account_id, h.conversation_id, CAST(NULL AS text) AS owner
FROM sweeper.legal_holds h
WHERE COALESCE(h.released_at, 'infinity') > :now AND (h.account_id IS NOT NULL OR h.conversation_id IS NOT NULL)
  AND (CAST(:ids AS bigint[]) IS NULL OR h.id = ANY(CAST(:ids AS bigint[])))
