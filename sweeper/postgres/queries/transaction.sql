-- name: begin
-- Give the transaction its time zone, search path and limits, and every setting that changes how our statements are read or
-- what they print, whatever the server, the database or the role says; all of them end with it. Compiling a statement that
-- touches a few pages costs more than running it, so jit is off. A client that has frozen gives its locks up. What is said
-- to be done must survive a crash: off becomes local, any stronger synchronous_commit stays. DateStyle leaves alone the
-- order of day and month, in which an application's views may read its own texts. No backslash stands in this text.
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
-- Join by hashing where an index is not asked for in so many words (LATERAL): the planner cannot know how many accounts a
-- range has histories for, and takes them for a handful.
SELECT set_config('enable_nestloop', 'off', true)

-- name: names_are_quoted
-- Whether a session of this role in this database begins with every name quoted, whatever this transaction has set.
SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings s WHERE s.name = 'quote_all_identifiers'

-- name: manifest_memory
-- Sort and join in at least 64 MB until the transaction ends: by far the most of a manifest's time is one sort of its rows.
SELECT set_config('work_mem', GREATEST(pg_size_bytes(current_setting('work_mem')) / 1024, 65536) || 'kB', true)
