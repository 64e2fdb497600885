SELECT o.id, CASE WHEN o.conversation_id IS NULL THEN o.account_id END AS account_id, o.conversation_id,
       CASE WHEN o.conversation_id IS NOT NULL THEN o.account_id END AS owner
FROM sweeper.erasure_orders o
WHERE (o.store IS NULL OR o.store = :store) AND (o.account_id IS NOT NULL OR o.conversation_id IS NOT NULL)
  AND (CAST(:ids AS bigint[]) IS NULL OR o.id = ANY(CAST(:ids AS bigint[])))
