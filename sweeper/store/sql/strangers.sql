-- Whether rows of other records point into the batch with ON DELETE CASCADE and would go with it.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition AND ($own_condition) IS NOT TRUE)
