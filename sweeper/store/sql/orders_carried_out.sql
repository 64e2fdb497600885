-- Of some orders, those that name what was purged: they find nothing because they, or a rule, have done their work.
SELECT o.id
FROM sweeper.erasure_orders o
WHERE o.id = ANY(CAST(:ids AS bigint[]))
  AND (EXISTS (SELECT FROM sweeper.tombstones t WHERE t.record_id = o.conversation_id)
       OR o.conversation_id IS NULL AND o.account_id IN (SELECT t.account_id FROM sweeper.tombstones t))
