-- Record what a batch purged, in its own transaction; no content.
INSERT INTO sweeper.tombstones
    (record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
SELECT :record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, :as_of, :run_id, :policy_digest,
       t.children, :approved, :purged_at
FROM jsonb_to_recordset(CAST(:tombstones AS jsonb))
     AS t (record_id text, conversation_id text, account_id text, rule text, due_at timestamptz, children jsonb)
