-- Of the privileges that a run needs, those that the role lacks; on every column that is named is as good as on the table.
SELECT n.number
FROM jsonb_to_recordset(CAST(:needs AS jsonb)) AS n (number integer, oid bigint, privilege text, columns text[], any_column boolean)
WHERE NOT CASE
    WHEN has_table_privilege(CAST(n.oid AS oid), n.privilege) THEN true
    WHEN n.any_column THEN has_any_column_privilege(CAST(n.oid AS oid), n.privilege)
    ELSE COALESCE((SELECT bool_and(has_column_privilege(a.attrelid, a.attnum, n.privilege))
                   FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = CAST(n.oid AS oid) AND a.attname = ANY(n.columns) AND NOT a.attisdropped), false)
END
ORDER BY n.number
