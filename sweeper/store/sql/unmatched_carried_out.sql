  AND NOT EXISTS (SELECT FROM sweeper.tombstones t WHERE t.record_id = o.conversation_id)
  AND NOT EXISTS (SELECT FROM sweeper.tombstones t WHERE o.conversation_id IS NULL AND t.account_id = o.account_id)
