-- The triggers of the sweeper's own tables and whether they fire.
SELECT c.relname::text AS table, t.tgname::text AS trigger, t.tgenabled IN ('O', 'A') AS fires
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'sweeper' AND NOT t.tgisinternal
