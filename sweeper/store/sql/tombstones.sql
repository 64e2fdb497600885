-- Record what a batch purged, in its own transaction; no content.
INSERT INTO sweeper.tombstones
    (record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
SELECT :record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, :as_of, :run_id, :policy_digest,
       CAST(t.children AS jsonb), :approved, :purged_at
FROM unnest(CAST(:record_ids AS text[]), CAST(:conversation_ids AS text[]), CAST(:account_ids AS text[]),
            CAST(:rules AS text[]), CAST(:dues AS timestamptz[]), CAST(:children AS text[]))
     AS t (record_id, conversation_id, account_id, rule, due_at, children)
