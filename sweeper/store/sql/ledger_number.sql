-- Give leaf numbers to spans of rows.
INSERT INTO sweeper.leaves (first, source, first_id, length)
SELECT r.first, :source, r.first_id, r.length
FROM unnest(CAST(:firsts AS bigint[]), CAST(:first_ids AS bigint[]), CAST(:lengths AS bigint[])) AS r (first, first_id, length)
