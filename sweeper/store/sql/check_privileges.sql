-- Of the privileges that a run needs, those that the role lacks; SELECT on every column that is read is as good as on the table.
SELECT n.number
FROM jsonb_to_recordset(CAST(:needs AS jsonb)) AS n (number integer, oid bigint, privilege text, columns text[])
WHERE NOT CASE
    WHEN n.privilege LIKE 'UPDATE (%' THEN has_any_column_privilege(CAST(n.oid AS oid), 'UPDATE')
    WHEN n.privilege = 'SELECT' THEN
        has_table_privilege(CAST(n.oid AS oid), 'SELECT')
        OR COALESCE((SELECT bool_and(has_column_privilege(a.attrelid, a.attnum, 'SELECT'))
                     FROM pg_catalog.pg_attribute a
                     WHERE a.attrelid = CAST(n.oid AS oid) AND a.attname = ANY(n.columns) AND NOT a.attisdropped), false)
    ELSE has_table_privilege(CAST(n.oid AS oid), n.privilege)
END
ORDER BY n.number
