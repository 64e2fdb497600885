-- Who owns schema sweeper, and whether the role may act as that owner.
SELECT r.rolname::text AS name,
       r.rolname <> current_user
       AND pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END) AS may_act
FROM pg_catalog.pg_namespace n
JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
WHERE n.nspname = 'sweeper'
