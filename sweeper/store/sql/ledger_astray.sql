-- Where the list of unnumbered ids is not what the numbered ones leave over: ids in neither, or in both. No list: all in neither.
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
