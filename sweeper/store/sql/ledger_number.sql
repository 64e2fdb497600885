-- Give leaf numbers to runs of rows.
INSERT INTO sweeper.leaves (first, source, first_id, count)
SELECT r.first, :source, r.first_id, r.count
FROM unnest(CAST(:firsts AS bigint[]), CAST(:first_ids AS bigint[]), CAST(:counts AS bigint[])) AS r (first, first_id, count)
