-- How many committed rows have no leaf number yet.
SELECT count(*)
FROM sweeper.ledger_sources s
CROSS JOIN LATERAL unnest(s.unnumbered) AS r (ids)
JOIN sweeper.$source t
    ON t.id >= coalesce(lower(r.ids), -9223372036854775808) AND t.id <= coalesce(upper(r.ids), 9223372036854775807)
    AND t.id <@ r.ids
WHERE s.source = '$source'
