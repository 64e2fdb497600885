-- Whether a contract relation still shows anything of conversations that were deleted.
SELECT EXISTS (SELECT 1 FROM $relation r WHERE r.$column = ANY(CAST(:ids AS $type[])))
