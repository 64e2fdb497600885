-- The rows of a table as the trigger tells them.
SELECT CAST(t.id AS text) AS row_id, to_jsonb(t) AS here FROM sweeper.$table t
