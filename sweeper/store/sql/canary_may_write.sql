-- Whether the role may read and fill a table.
SELECT has_table_privilege(CAST(:oid AS oid), 'INSERT') AND has_table_privilege(CAST(:oid AS oid), 'SELECT')
