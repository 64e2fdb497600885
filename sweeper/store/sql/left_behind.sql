-- Whether a table still has children of records that were deleted.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition)
