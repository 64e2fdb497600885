-- Delete the children of a batch in one table.
DELETE FROM $table t WHERE $condition
