-- Of some tables, which privileges a role that is neither the owner nor its member nor a superuser has on a column or on all.
SELECT c.oid::bigint AS oid, p.privilege
FROM pg_catalog.pg_class c
CROSS JOIN (VALUES ('INSERT'), ('UPDATE')) AS p (privilege)
WHERE c.oid = ANY(CAST(CAST(:oids AS bigint[]) AS oid[]))
  AND EXISTS (
      SELECT FROM pg_catalog.pg_roles r
      WHERE NOT pg_has_role(r.oid, c.relowner, 'USAGE') AND NOT r.rolsuper AND r.rolname NOT LIKE 'pg\_%'
        AND has_any_column_privilege(r.oid, c.oid, p.privilege)
  )
