-- How many committed rows no checkpoint covers yet, counted no further than a limit.
SELECT count(*)
FROM (
    SELECT 1
    FROM sweeper.ledger_sources s
    CROSS JOIN LATERAL unnest(s.unnumbered) AS r (ids)
    JOIN sweeper.$source t
        ON t.id >= coalesce(lower(r.ids), -9223372036854775808) AND (upper(r.ids) IS NULL OR t.id < upper(r.ids))
    WHERE s.source = '$source'
    LIMIT :limit
) AS uncovered
