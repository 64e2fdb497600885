-- name: insert_event
-- Record an event.
INSERT INTO sweeper.events (kind, run_id, details) VALUES (:kind, :run_id, CAST(:details AS jsonb))

-- name: tombstone_of
-- The newest tombstone of a conversation.
SELECT t.run_id, t.rule, t.due_at, t.as_of, t.purged_at FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record_id = :id AND t.record = 'conversation' ORDER BY t.id DESC LIMIT 1

-- name: tombstones_last
-- The id of the newest visible tombstone.
SELECT COALESCE(max(t.id), 0) AS last FROM sweeper.tombstones t

-- name: purged_since
-- The conversations of a store purged or redacted after a tombstone, with what happened and the time.
SELECT t.record_id, CASE WHEN bool_or(t.record = 'conversation') THEN 'purged' ELSE 'redacted' END AS reason,
       max(t.purged_at) AS purged_at
FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record <> 'feedback' AND t.id > :last
GROUP BY t.record_id

-- name: identity
-- The identity of this store: the database's name and the random id created with the sweeper's tables.
SELECT current_database() AS name, i.id::text AS id FROM sweeper.identity i
