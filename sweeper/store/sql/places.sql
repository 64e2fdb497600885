-- Where the rows of a batch lie in a table, to see afterwards that they are gone.
SELECT t.ctid::text AS place, t.tableoid::bigint || t.ctid::text AS mark FROM $table t WHERE $condition
