-- The ids of committed rows that have no leaf number, from an id on, in order.
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
