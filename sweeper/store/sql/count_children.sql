-- The children that each record of a batch has in one table, over whichever of its keys.
SELECT p.$key::text AS id, count(*) AS children
FROM $root p JOIN $table t ON $joined
WHERE p.$key = ANY(CAST(:ids AS $type[]))
GROUP BY p.$key
