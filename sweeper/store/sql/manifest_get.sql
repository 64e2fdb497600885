-- The manifests of a store, or one of them, oldest first.
SELECT id, directory, as_of, policy_digest, eligible, state, frozen_at, started_at, completed_at, recalled_at,
       (SELECT count(DISTINCT r.message_id) FROM sweeper.revocations r WHERE r.manifest_id = m.id) AS revoked
FROM sweeper.manifests m
WHERE store = :store AND (CAST(:id AS text) IS NULL OR id = :id)
ORDER BY frozen_at, id
