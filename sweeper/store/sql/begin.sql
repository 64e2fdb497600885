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
