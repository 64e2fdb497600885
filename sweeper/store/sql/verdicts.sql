-- The verdict on every conversation that exists at as-of: the rule, its due (NULL: there is none, or never), whether a legal hold
-- keeps it, and the first doubt about it.
WITH stays AS MATERIALIZED (
$stays
), epochs AS MATERIALIZED (
$epochs
), owners AS MATERIALIZED (
$owners
), holds AS MATERIALIZED (
    SELECT h.account_id IS NULL AND h.conversation_id IS NULL AS on_everything,
           sweeper.spelling(h.account_id) AS account_id,
           sweeper.spelling(h.conversation_id) AS conversation_id
    FROM sweeper.legal_holds h
    WHERE ($placed_believed AND h.placed_at > $as_of) IS NOT TRUE AND ($released_believed AND h.released_at <= $as_of) IS NOT TRUE
)
SELECT v.id::text AS conversation_id,
       CASE
           WHEN v.order_due < COALESCE(m.due, 'infinity') THEN 'erasure_order'
           WHEN m.due > v.due THEN CASE m.due $floors END
           WHEN v.due IS NOT NULL THEN v.rule
           WHEN v.doubt IS NOT NULL THEN 'unclassified'
       END AS rule,
       NULLIF(LEAST(m.due, v.order_due), 'infinity') AS due,
       EXISTS (SELECT FROM holds h WHERE h.on_everything)
       OR COALESCE($account_spelling IN (SELECT h.account_id FROM holds h WHERE h.account_id IS NOT NULL), false)
       OR $conversation_spelling IN (SELECT h.conversation_id FROM holds h WHERE h.conversation_id IS NOT NULL) AS held,
       v.doubt
FROM (
$decided
) AS v
CROSS JOIN LATERAL (SELECT $least OFFSET 0) AS f
CROSS JOIN LATERAL (SELECT CASE WHEN v.due IS NOT NULL THEN GREATEST(v.due$names) END AS due OFFSET 0) AS m
WHERE v.present
