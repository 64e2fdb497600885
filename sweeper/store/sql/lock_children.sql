-- How many children of a conversation there are, and how many of them could be locked without waiting.
WITH locked AS MATERIALIZED (SELECT 1 FROM $table t WHERE $condition FOR UPDATE SKIP LOCKED)
SELECT (SELECT count(*) FROM $table t WHERE $condition) AS present, (SELECT count(*) FROM locked) AS locked
