-- name: lock_rows
-- Lock the physical rows of a batch; rows that others have locked are left out.
SELECT $key::text AS id FROM $table t WHERE $key = ANY(CAST(:ids AS $type[])) ORDER BY $key FOR UPDATE SKIP LOCKED

-- name: lock_rows_waiting
-- Lock the physical rows of a batch, waiting up to lock_timeout for rows that others have locked.
SELECT $key::text AS id FROM $table t WHERE $key = ANY(CAST(:ids AS $type[])) ORDER BY $key FOR UPDATE

-- name: existing
-- Of the given ids, those whose physical rows exist, locked by others or not, once for each row.
SELECT $key::text AS id FROM $table t WHERE $key = ANY(CAST(:ids AS $type[]))

-- name: row_locations
-- The physical locations of a batch's rows in a table, to verify afterwards that they are deleted.
SELECT t.ctid::text AS place, t.tableoid::bigint || t.ctid::text AS mark FROM $table t WHERE $condition

-- name: count_children
-- How many children each record of a batch has in one table, by any of its keys.
SELECT p.sweeper_key::text AS id, count(*) AS children
FROM (SELECT $columns, $key AS sweeper_key FROM $root t) p JOIN $table t ON $joined
WHERE p.sweeper_key = ANY(CAST(:ids AS $type[]))
GROUP BY p.sweeper_key

-- name: count_direct_children
-- How many children each record of a batch has in one table.
SELECT $key::text AS id, count(*) AS children FROM $table t WHERE $condition GROUP BY $key

-- name: lock_children
-- How many children a conversation has, and how many of them could be locked without waiting.
WITH locked AS MATERIALIZED (SELECT 1 FROM $table t WHERE $condition FOR UPDATE SKIP LOCKED)
SELECT (SELECT count(*) FROM $table t WHERE $condition) AS present, (SELECT count(*) FROM locked) AS locked

-- name: remember_objects
-- Record the objects of a batch's attachments, to be removed after the commit.
INSERT INTO sweeper.object_purges (uri, conversation_id, run_id)
SELECT a.uri, a.conversation_id::text, :run_id
FROM attachments a
WHERE a.conversation_id = ANY(CAST(:ids AS $conversation[])) AND a.uri IS NOT NULL

-- name: other_records
-- Whether rows of other records refer to the batch with ON DELETE CASCADE and would be deleted with it.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition AND ($own_condition) IS NOT TRUE)

-- name: other_records_by_key
-- Whether rows that one key would delete with the batch belong to other records by another key.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition AND ($elsewhere))

-- name: delete_children
-- Delete the children of a batch in one table.
DELETE FROM $table t WHERE $condition

-- name: redact_children
-- Set columns of the children of a batch in one table to NULL; the rows stay.
UPDATE $table t SET $columns WHERE $condition

-- name: content_left
-- The conversation of each row of a batch in one table that has content left to redact.
SELECT $key::text AS id FROM $table t WHERE $belongs AND ($left)

-- name: empty_columns
-- Empty the content columns of a batch in one table and return the conversation of each row that was changed.
UPDATE $table t SET $assignments WHERE $belongs AND ($left) RETURNING $key::text AS id

-- name: delete_rows
-- Delete the records of a batch and return the id of each row that was deleted.
DELETE FROM $table t WHERE $key = ANY(CAST(:ids AS $type[])) RETURNING $key::text AS id

-- name: shared_rows
-- The shared rows that the children of a batch name, each with one of its conversations.
SELECT t.$column::text AS shared, min($key::text) AS conversation FROM $table t WHERE $condition AND t.$column IS NOT NULL GROUP BY t.$column

-- name: delete_unnamed
-- Delete those of the locked shared rows that nothing refers to any more.
DELETE FROM $table t WHERE $key = ANY(CAST(:ids AS $type[])) AND $others RETURNING $key::text AS id

-- name: left_behind
-- Whether a table still has children of deleted records.
SELECT EXISTS (SELECT 1 FROM $table t WHERE $condition)

-- name: left_in_place
-- Whether rows that were to be deleted are still at their physical locations.
SELECT EXISTS (
    SELECT 1 FROM $table t
    WHERE t.ctid = ANY(CAST(:places AS tid[])) AND t.tableoid::bigint || t.ctid::text = ANY(CAST(:marks AS text[]))
)

-- name: left_in_relation
-- Whether a contract relation still shows rows of deleted conversations.
SELECT EXISTS (SELECT 1 FROM $relation r WHERE r.$column = ANY(CAST(:ids AS $type[])))

-- name: insert_tombstones
-- Record what a batch purged, in the batch's transaction; no content.
INSERT INTO sweeper.tombstones
    (record, record_id, conversation_id, account_id, rule, due_at, as_of, run_id, policy_digest, children, approved, purged_at)
SELECT :record, t.record_id, t.conversation_id, t.account_id, t.rule, t.due_at, :as_of, :run_id, :policy_digest,
       t.children, :approved, :purged_at
FROM jsonb_to_recordset(CAST(:tombstones AS jsonb))
     AS t (record_id text, conversation_id text, account_id text, rule text, due_at timestamptz, children jsonb)
