-- Some records that have rows in a table below them: whose the first rows that come are.
SELECT DISTINCT t.owner AS id
FROM (SELECT t.$column::text AS owner FROM $table t WHERE t.$column IS NOT NULL LIMIT 50) t
LIMIT :some
