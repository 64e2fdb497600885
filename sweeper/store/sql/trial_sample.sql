-- A few records by key: the first, the last, and of the first thousand rows some that share their key with others.
(SELECT t.$key::text AS id FROM $table t WHERE t.$key IS NOT NULL ORDER BY t.$key LIMIT :some)
UNION
(SELECT t.$key::text FROM $table t WHERE t.$key IS NOT NULL ORDER BY t.$key DESC LIMIT :some)
UNION
(SELECT k.key::text
 FROM (SELECT t.$key AS key FROM $table t WHERE t.$key IS NOT NULL ORDER BY t.$key LIMIT 1000) k
 GROUP BY k.key HAVING count(*) > 1 ORDER BY k.key LIMIT :some)
