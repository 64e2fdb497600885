-- name: copy_claim
-- Claim a copy for some seconds, unless another process has claimed it, and return its cursor.
INSERT INTO sweeper.copies AS c (store, name, claimed_until)
VALUES (:store, :name, clock_timestamp() + make_interval(secs => :seconds))
ON CONFLICT (store, name) DO UPDATE SET claimed_until = EXCLUDED.claimed_until WHERE c.claimed_until <= clock_timestamp()
RETURNING c.next_leaf, c.claimed_until

-- name: copy_renew
-- Extend a claim; no row if another process has taken the copy over.
UPDATE sweeper.copies SET claimed_until = clock_timestamp() + make_interval(secs => :seconds)
WHERE store = :store AND name = :name AND claimed_until = :claimed_until
RETURNING next_leaf, claimed_until

-- name: copy_release
-- Give a claim back.
UPDATE sweeper.copies SET claimed_until = '-infinity'
WHERE store = :store AND name = :name AND claimed_until = :claimed_until

-- name: copy_batch
-- The next tombstones of a store, in the order of their leaves, from a leaf on. Leaf numbers are given to committed rows only and
-- become visible in their order, so no tombstone that commits later can lie behind the cursor.
SELECT l.first + (t.id - l.first_id) AS leaf, t.record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, t.purged_at,
       t.run_id
FROM sweeper.leaves l
CROSS JOIN LATERAL (
    SELECT t.* FROM sweeper.tombstones t JOIN sweeper.runs r ON r.id = t.run_id
    WHERE t.id >= l.first_id + greatest(:next_leaf - l.first, 0) AND t.id <= l.first_id + (l.length - 1)
        AND r.store = :store AND t.record = ANY(CAST(:records AS text[]))
    ORDER BY t.id LIMIT :limit
) t
WHERE l.source = 'tombstones' AND l.first + l.length > :next_leaf
    AND l.first >= coalesce((SELECT max(b.first) FROM sweeper.leaves b WHERE b.first <= :next_leaf), 0)
ORDER BY l.first, t.id LIMIT :limit

-- name: copy_acknowledged
-- Move the cursor over records that the copy has acknowledged; no row if another process has taken the copy over.
UPDATE sweeper.copies SET next_leaf = :next_leaf, delivered_at = :now, failed_at = NULL, last_error = NULL
WHERE store = :store AND name = :name AND claimed_until = :claimed_until AND next_leaf = :before
RETURNING next_leaf

-- name: copy_failed
-- Record why a delivery failed; the cursor stays.
UPDATE sweeper.copies SET failed_at = :now, last_error = :error
WHERE store = :store AND name = :name AND claimed_until = :claimed_until

-- name: copy_lag
-- How many tombstones of a store a copy has not acknowledged, counted up to a limit, with the time of the oldest of them.
SELECT c.next_leaf, c.delivered_at, c.failed_at, c.last_error, b.records, b.since
FROM (VALUES (1)) AS one (row)
LEFT JOIN sweeper.copies c ON c.store = :store AND c.name = :name
CROSS JOIN LATERAL (
    SELECT count(*) AS records, min(u.purged_at) AS since
    FROM (
        (
            SELECT t.purged_at
            FROM sweeper.leaves l
            JOIN sweeper.tombstones t
                ON t.id >= l.first_id + greatest(coalesce(c.next_leaf, 0) - l.first, 0) AND t.id <= l.first_id + (l.length - 1)
            JOIN sweeper.runs r ON r.id = t.run_id
            WHERE l.source = 'tombstones' AND l.first + l.length > coalesce(c.next_leaf, 0)
                AND l.first >= coalesce((SELECT max(b.first) FROM sweeper.leaves b WHERE b.first <= c.next_leaf), 0)
                AND r.store = :store AND t.record = ANY(CAST(:records AS text[]))
            LIMIT :limit
        )
        UNION ALL
        (
            SELECT t.purged_at
            FROM sweeper.ledger_sources s
            CROSS JOIN LATERAL unnest(s.unnumbered) AS i (ids)
            JOIN sweeper.tombstones t
                ON t.id >= coalesce(lower(i.ids), -9223372036854775808) AND (upper(i.ids) IS NULL OR t.id < upper(i.ids))
            JOIN sweeper.runs r ON r.id = t.run_id
            WHERE s.source = 'tombstones' AND r.store = :store AND t.record = ANY(CAST(:records AS text[]))
            LIMIT :limit
        )
    ) AS u
) AS b
