-- name: begin
-- Set the transaction's time zone, search path and limits, and every setting that changes how our statements are read or what
-- they print, whatever the server, the database or the role sets; all of them end with the transaction. jit is off, because
-- compiling a statement that touches a few pages costs more than running it. A client that hangs loses its locks. What is
-- reported as done must survive a crash: synchronous_commit off becomes local, any stronger value stays. DateStyle keeps the
-- order of day and month, by which an application's views may read its own texts. This text contains no backslash.
SELECT set_config('standard_conforming_strings', 'on', true),
       set_config('TimeZone', 'UTC', true),
       set_config('DateStyle', 'ISO', true),
       set_config('IntervalStyle', 'postgres', true),
       set_config('bytea_output', 'hex', true),
       set_config('extra_float_digits', '1', true),
       set_config('quote_all_identifiers', 'off', true),
       set_config('array_nulls', 'on', true),
       set_config('transform_null_equals', 'off', true),
       set_config('check_function_bodies', 'on', true),
       set_config('search_path', :search_path, true),
       set_config('row_security', 'off', true),
       set_config('client_encoding', 'UTF8', true),
       set_config('jit', 'off', true),
       CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'local', true) END,
       set_config('lock_timeout', :lock_timeout, true),
       set_config('statement_timeout', :statement_timeout, true),
       CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN set_config('transaction_timeout', '0', true) END,
       set_config('idle_in_transaction_session_timeout', :idle_timeout, true)

-- name: plan_by_key
-- Prefer hash joins unless a statement asks for an index by LATERAL: the planner underestimates how many accounts of a range
-- have histories.
SELECT set_config('enable_nestloop', 'off', true)

-- name: names_are_quoted
-- Whether a session of this role in this database starts with every name quoted, whatever this transaction has set.
SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings s WHERE s.name = 'quote_all_identifiers'

-- name: manifest_memory
-- Sort and join in at least 64 MB until the transaction ends: most of a manifest's time is one sort of its rows.
SELECT set_config('work_mem', GREATEST(pg_size_bytes(current_setting('work_mem')) / 1024, 65536) || 'kB', true)
