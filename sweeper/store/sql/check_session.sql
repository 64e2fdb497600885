-- The server, the role, and the settings of the session that a purge depends on.
SELECT current_setting('server_version_num')::integer AS version_number,
       current_setting('server_version') AS version,
       quote_ident(current_user) AS role,
       quote_ident(current_database()) AS database,
       has_database_privilege(current_database(), 'TEMPORARY') AS temporary,
       pg_catalog.pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only')::boolean AS read_only,
       current_setting('session_replication_role') AS replication_role,
       (SELECT s.setting::integer FROM pg_catalog.pg_settings s WHERE s.name = 'deadlock_timeout') AS deadlock_timeout_ms
