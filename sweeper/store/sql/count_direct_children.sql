-- The children that each record of a batch has in one table.
SELECT t.$column::text AS id, count(*) AS children FROM $table t WHERE $condition GROUP BY t.$column
