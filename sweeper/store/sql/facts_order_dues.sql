-- The earliest date of the erasure orders that cover each record of a batch, exactly as they spell its ids (policy, Retention):
-- known at as-of, and recorded when the record was there. Of the orders of an account, each is looked at once: the records split
-- its time into stretches, and what the orders of a later stretch say holds for the records before it as well. OFFSET 0 with
-- the dates outside: else a planner may walk all orders of the account by their dates, once for each record.
WITH records AS (
    SELECT r.number, r.account_id, r.conversation_id, COALESCE(r.since, 'infinity') AS since
    FROM unnest(CAST(:owners AS text[]), CAST(:conversations AS text[]), CAST(:since AS timestamptz[]))
         WITH ORDINALITY AS r (account_id, conversation_id, since, number)
), stretches AS (
    SELECT r.number, r.account_id, r.since, lag(r.since) OVER (PARTITION BY r.account_id ORDER BY r.since DESC, r.number) AS until
    FROM records r
    WHERE r.account_id IS NOT NULL
), of_stretches AS (
    SELECT s.number, s.account_id, s.since,
           LEAST(
               (SELECT min(t.due_at) FROM (
                    SELECT o.due_at FROM sweeper.erasure_orders o
                    WHERE o.account_id = s.account_id AND o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
                      AND o.recorded_at >= s.since AND o.recorded_at < s.until AND o.recorded_at <= :as_of
                    OFFSET 0) AS t
                WHERE t.due_at >= :plausible_from AND t.due_at < :plausible_before),
               CASE WHEN s.until IS NULL THEN
                   (SELECT min(t.due_at) FROM (
                        SELECT o.due_at FROM sweeper.erasure_orders o
                        WHERE o.account_id = s.account_id AND o.conversation_id IS NULL AND (o.store IS NULL OR o.store = :store)
                          AND (o.recorded_at >= s.since AND o.recorded_at <= :as_of OR o.recorded_at IS NULL)
                        OFFSET 0) AS t
                    WHERE t.due_at >= :plausible_from AND t.due_at < :plausible_before)
               END
           ) AS due_at
    FROM stretches s
)
SELECT f.number - 1 AS number, min(f.due_at) AS due_at
FROM (
    SELECT s.number, min(s.due_at) OVER (PARTITION BY s.account_id ORDER BY s.since DESC) AS due_at FROM of_stretches s
    UNION ALL
    SELECT r.number, o.due_at
    FROM records r
    CROSS JOIN LATERAL (
        SELECT min(o.due_at) AS due_at FROM sweeper.erasure_orders o
        WHERE o.conversation_id = r.conversation_id
          AND (o.account_id IS NULL OR o.account_id = r.account_id) AND (o.store IS NULL OR o.store = :store)
          AND (o.recorded_at IS NULL OR o.recorded_at <= :as_of AND o.recorded_at >= r.since)
          AND o.due_at >= :plausible_from AND o.due_at < :plausible_before
    ) AS o
) AS f
WHERE f.due_at IS NOT NULL
GROUP BY f.number
