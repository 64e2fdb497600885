-- name: manifest_add
-- Record a manifest as frozen; one with the same content is not recorded twice.
INSERT INTO sweeper.manifests (id, store, directory, as_of, policy_digest, eligible, state, frozen_at)
VALUES (:id, :store, :directory, :as_of, :policy_digest, :eligible, 'frozen', :now)
ON CONFLICT (id) DO NOTHING
RETURNING id

-- name: manifest_stored
-- The manifests, each with the place that its last relocation recorded and when it was retired. One that was built again after
-- it was retired is in use again.
SELECT m.id, m.store, COALESCE(place.directory, m.directory) AS directory, m.as_of, m.policy_digest, m.eligible, m.state,
       m.frozen_at, m.started_at, m.completed_at, m.recalled_at, last.retired_at
FROM sweeper.manifests m
LEFT JOIN LATERAL (
    SELECT e.details ->> 'directory' AS directory FROM sweeper.events e
    WHERE e.details ->> 'manifest' = m.id AND e.kind = 'manifest_relocated'
    ORDER BY e.id DESC LIMIT 1
) place ON true
LEFT JOIN LATERAL (
    SELECT CASE WHEN e.kind = 'manifest_retired' THEN e.at END AS retired_at FROM sweeper.events e
    WHERE e.details ->> 'manifest' = m.id
      AND e.kind IN ('manifest_frozen', 'manifest_copied', 'manifest_relocated', 'manifest_retired')
    ORDER BY e.id DESC LIMIT 1
) last ON true

-- name: manifest_get
-- The manifests of a store, or one of them, oldest first.
SELECT id, directory, as_of, policy_digest, eligible, state, frozen_at, started_at, completed_at, recalled_at, retired_at,
       (SELECT count(DISTINCT r.message_id) FROM sweeper.revocations r WHERE r.manifest_id = m.id) AS revoked
FROM ($stored) m
WHERE store = :store AND (CAST(:id AS text) IS NULL OR id = :id)
ORDER BY frozen_at, id

-- name: manifest_records
-- What the events recorded of a manifest when it was frozen, copied, relocated and started, in order.
SELECT e.kind, e.details FROM sweeper.events e
WHERE e.details ->> 'manifest' = :id
  AND e.kind IN ('manifest_frozen', 'manifest_copied', 'manifest_relocated', 'manifest_started')
ORDER BY e.id

-- name: manifest_lock
-- Lock a manifest, so that what the next statement reads of it stays until the transaction ends.
SELECT FROM sweeper.manifests WHERE id = :id FOR UPDATE

-- name: manifest_move
-- Change the state of a manifest that is in the expected state.
UPDATE sweeper.manifests
SET state = :state,
    started_at = CASE WHEN :state = 'started' THEN :now ELSE started_at END,
    completed_at = CASE WHEN :state = 'completed' THEN :now ELSE completed_at END
WHERE id = :id AND store = :store AND state = :from
RETURNING id

-- name: manifest_revoke
-- Record the rows that left a manifest; rows already recorded stay unchanged.
INSERT INTO sweeper.revocations (manifest_id, message_id, conversation_id, reason, since, found_at, found_by)
SELECT :manifest_id, r.message_id, r.conversation_id, r.reason, r.since, :now, :found_by
FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (message_id text, conversation_id text, reason text, since timestamptz)
ORDER BY r.message_id
ON CONFLICT (manifest_id, message_id, found_by) DO NOTHING

-- name: manifest_revoked
-- How many rows the files beside a manifest name: those that had left when it was frozen or started.
SELECT count(DISTINCT r.message_id) FROM sweeper.revocations r
WHERE r.manifest_id = :manifest_id AND r.found_by IN ('freeze', 'start')

-- name: manifest_revoked_of
-- How many of some messages are recorded as having left a manifest, by who found that first.
SELECT f.found_by, count(*) AS messages
FROM unnest(CAST(:ids AS text[])) AS m (id)
CROSS JOIN LATERAL (
    SELECT r.found_by FROM sweeper.revocations r
    WHERE r.manifest_id = :manifest_id AND r.message_id = m.id ORDER BY r.id LIMIT 1
) AS f
GROUP BY f.found_by

-- name: manifest_recalled
-- Record when a manifest was last recalled.
UPDATE sweeper.manifests SET recalled_at = :now WHERE id = :id
