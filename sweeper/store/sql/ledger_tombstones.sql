-- Tombstones with these ids as JSON texts, in order of id; instants are in UTC, jsonb is a text in it.
SELECT t.id, row_to_json(l)::text AS told
FROM unnest(CAST(:ids AS int8multirange)) AS r (ids)
JOIN sweeper.tombstones t ON t.id >= lower(r.ids) AND (upper(r.ids) IS NULL OR t.id < upper(r.ids))
CROSS JOIN LATERAL (
    SELECT t.id, t.record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, t.as_of, t.run_id, t.policy_digest,
           t.children::text AS children, t.approved, t.purged_at
) l
ORDER BY t.id
