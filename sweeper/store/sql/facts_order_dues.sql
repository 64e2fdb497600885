-- The earliest date of the erasure orders that cover each record of a batch, exactly as they spell its ids (policy, Retention):
-- known at as-of, and recorded when the record was there. One pass by time over the orders of an account serves all its records.
WITH records AS (
    SELECT r.number, r.account_id, r.conversation_id, COALESCE(r.since, 'infinity') AS since
    FROM unnest(CAST(:owners AS text[]), CAST(:conversations AS text[]), CAST(:since AS timestamptz[]))
         WITH ORDINALITY AS r (account_id, conversation_id, since, number)
), dated AS (
    SELECT o.account_id, COALESCE(o.recorded_at, 'infinity') AS at, o.due_at
    FROM sweeper.erasure_orders o
    WHERE o.account_id = ANY(CAST(:accounts AS text[])) AND o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
      AND (o.recorded_at IS NULL OR o.recorded_at <= :as_of) AND o.due_at >= :plausible_from AND o.due_at < :plausible_before
), covering AS (
    SELECT t.number, min(t.due_at) OVER (PARTITION BY t.account_id ORDER BY t.at DESC) AS due_at
    FROM (
        SELECT CAST(NULL AS bigint) AS number, d.account_id, d.at, d.due_at FROM dated d
        UNION ALL
        SELECT r.number, r.account_id, r.since, NULL FROM records r WHERE EXISTS (SELECT FROM dated)
    ) AS t
)
SELECT f.number - 1 AS number, min(f.due_at) AS due_at
FROM (
    SELECT c.number, c.due_at FROM covering c WHERE c.number IS NOT NULL AND c.due_at IS NOT NULL
    UNION ALL
    SELECT r.number, o.due_at
    FROM records r
    JOIN sweeper.erasure_orders o ON o.conversation_id = r.conversation_id
    WHERE (o.account_id IS NULL OR o.account_id = r.account_id) AND (o.store IS NULL OR o.store = :store)
      AND (o.recorded_at IS NULL OR o.recorded_at <= :as_of AND o.recorded_at >= r.since)
      AND o.due_at >= :plausible_from AND o.due_at < :plausible_before
) AS f
GROUP BY f.number
