-- name: ledger_lock
-- Become the only transaction that assigns leaf numbers, until it ends.
SELECT source FROM sweeper.ledger_sources ORDER BY source FOR UPDATE

-- name: ledger_size
-- The number of numbered leaves.
SELECT coalesce((SELECT first + length FROM sweeper.leaves ORDER BY first DESC LIMIT 1), 0)

-- name: ledger_unnumbered
-- The ids of committed rows without a leaf number, from an id on, in order.
SELECT t.id
FROM sweeper.ledger_sources s
CROSS JOIN LATERAL unnest(s.unnumbered * int8multirange(int8range(:since, NULL))) AS r (ids)
CROSS JOIN LATERAL (
    SELECT t.id FROM sweeper.$source t
    WHERE t.id >= coalesce(lower(r.ids), -9223372036854775808) AND t.id <= coalesce(upper(r.ids), 9223372036854775807)
        AND t.id <@ r.ids
    ORDER BY t.id LIMIT :limit
) t
WHERE s.source = '$source'
ORDER BY t.id LIMIT :limit

-- name: ledger_tombstones
-- The tombstones with these ids as JSON texts, in order of id; instants are in UTC, jsonb is text. The limit makes the planner
-- use the key.
SELECT t.id, row_to_json(l)::text AS leaf
FROM unnest(CAST(:ids AS int8multirange)) AS r (ids)
CROSS JOIN LATERAL (
    SELECT * FROM sweeper.tombstones t
    WHERE t.id >= lower(r.ids) AND t.id <= coalesce(upper(r.ids), 9223372036854775807) AND t.id <@ r.ids
    ORDER BY t.id LIMIT :limit
) t
CROSS JOIN LATERAL (
    SELECT t.id, t.record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, t.as_of, t.run_id, t.policy_digest,
           t.children::text AS children, t.approved, t.purged_at
) l
ORDER BY t.id

-- name: ledger_events
-- The events with these ids as JSON texts, in order of id; instants are in UTC, jsonb is text. The limit makes the planner use
-- the key.
SELECT t.id, row_to_json(l)::text AS leaf
FROM unnest(CAST(:ids AS int8multirange)) AS r (ids)
CROSS JOIN LATERAL (
    SELECT * FROM sweeper.events t
    WHERE t.id >= lower(r.ids) AND t.id <= coalesce(upper(r.ids), 9223372036854775807) AND t.id <@ r.ids
    ORDER BY t.id LIMIT :limit
) t
CROSS JOIN LATERAL (SELECT t.id, t.at, t.kind, t.run_id, t.actor, t.details::text AS details) l
ORDER BY t.id

-- name: ledger_number
-- Assign leaf numbers to ranges of rows.
INSERT INTO sweeper.leaves (first, source, first_id, length)
SELECT r.first, :source, r.first_id, r.length
FROM unnest(CAST(:firsts AS bigint[]), CAST(:first_ids AS bigint[]), CAST(:lengths AS bigint[])) AS r (first, first_id, length)

-- name: ledger_advance
-- Record which ids now have leaf numbers.
UPDATE sweeper.ledger_sources SET unnumbered = unnumbered - CAST(:ids AS int8multirange) WHERE source = :source

-- name: ledger_keep
-- Store nodes of the tree.
INSERT INTO sweeper.tiles (level, first, hashes)
SELECT n.level, n.first, n.hashes
FROM unnest(CAST(:levels AS smallint[]), CAST(:firsts AS bigint[]), CAST(:hashes AS bytea[])) AS n (level, first, hashes)

-- name: ledger_tile
-- The stored nodes of one tile.
SELECT first, hashes FROM sweeper.tiles WHERE level = :level AND first >= :begin AND first < :begin + 256 ORDER BY first

-- name: ledger_spans
-- The leaf numbers of ranges of rows, range by range, after a given one.
SELECT first, source, first_id, length FROM sweeper.leaves WHERE first > :after ORDER BY first LIMIT :limit

-- name: checkpoint_record
-- Record a checkpoint.
INSERT INTO sweeper.checkpoints (size, root, note, signed_by, taken_at) VALUES (:size, :root, :note, :signed_by, :taken_at)

-- name: checkpoint_last
-- The newest checkpoint, or the newest signed one.
SELECT id, size, root, note, signed_by, taken_at FROM sweeper.checkpoints
WHERE NOT :signed OR signed_by IS NOT NULL ORDER BY id DESC LIMIT 1

-- name: checkpoints
-- Checkpoints in the order in which they were taken, in pages.
SELECT id, size, root, note, signed_by, taken_at FROM sweeper.checkpoints WHERE id > :after ORDER BY id LIMIT :limit

-- name: ledger_was_signed
-- Whether any checkpoint is signed.
SELECT EXISTS (SELECT FROM sweeper.checkpoints c WHERE c.signed_by IS NOT NULL)

-- name: ledger_leaf_of
-- The leaf number of a row, if it has one.
SELECT l.first + (:id - l.first_id) AS leaf
FROM (SELECT * FROM sweeper.leaves WHERE source = :source AND first_id <= :id ORDER BY first_id DESC LIMIT 1) l
WHERE :id - l.first_id < l.length

-- name: ledger_tombstones_of
-- The tombstones of a conversation in a store, the newest first.
SELECT t.id FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
WHERE r.store = :store AND t.record_id = :id AND t.record = 'conversation' ORDER BY t.id DESC LIMIT 100

-- name: ledger_openings
-- The events that record a run as opened.
SELECT id FROM sweeper.events WHERE kind = 'run_opened' ORDER BY id

-- name: ledger_reapplied
-- How each reapplication of a ledger was authorised: by a digest that a person gave, or NULL.
SELECT details ->> 'confirmed' AS confirmed
FROM sweeper.events
WHERE kind = 'reapply'
  AND details @> jsonb_build_object('log', CAST(:log AS text), 'size', CAST(:size AS bigint), 'root', CAST(:root AS text))

-- name: ledger_uncovered
-- How many committed rows have no leaf number yet.
SELECT count(*)
FROM sweeper.ledger_sources s
CROSS JOIN LATERAL unnest(s.unnumbered) AS r (ids)
JOIN sweeper.$source t
    ON t.id >= coalesce(lower(r.ids), -9223372036854775808) AND t.id <= coalesce(upper(r.ids), 9223372036854775807)
    AND t.id <@ r.ids
WHERE s.source = '$source'

-- name: ledger_beyond
-- The first node stored beyond the numbered leaves.
SELECT t.level, t.first
FROM sweeper.tiles t
CROSS JOIN (SELECT coalesce(max(first + length), 0) AS size FROM sweeper.leaves) l
WHERE t.first + octet_length(t.hashes) / 32 > l.size >> (8 * t.level)
ORDER BY t.level, t.first LIMIT 1

-- name: ledger_twice
-- The first row that has two leaf numbers.
SELECT l.source, l.first_id AS id, l.first AS leaf
FROM (
    SELECT *, max(first_id + (length - 1)) OVER (
        PARTITION BY source ORDER BY first_id, first ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS before
    FROM sweeper.leaves
) l
WHERE l.first_id <= l.before
ORDER BY l.first LIMIT 1

-- name: ledger_misnumbered
-- Where the list of unnumbered ids is not the complement of the numbered ones: ids in neither, or in both. Without a list: all
-- ids in neither.
SELECT s.source,
       coalesce(lower(u.left_over - s.unnumbered), lower(s.unnumbered - u.left_over)) AS first_id,
       NOT isempty(u.left_over - s.unnumbered) AS forgotten
FROM (
    SELECT n.source, coalesce(k.unnumbered, '{}') AS unnumbered
    FROM (VALUES ('tombstones'), ('events')) AS n (source) LEFT JOIN sweeper.ledger_sources k USING (source)
) s
CROSS JOIN LATERAL (
    SELECT '{(,)}'::int8multirange - coalesce(range_agg(
        int8range(l.first_id, CASE WHEN l.first_id + (l.length - 1) < 9223372036854775807 THEN l.first_id + l.length END)
    ), '{}') AS left_over
    FROM sweeper.leaves l WHERE l.source = s.source
) u
WHERE s.unnumbered <> u.left_over
ORDER BY s.source LIMIT 1
