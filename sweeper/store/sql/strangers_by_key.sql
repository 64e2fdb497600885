-- Whether rows that would go with the batch by one key belong to other records by another.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition AND ($elsewhere))
