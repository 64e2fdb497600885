-- Give the transaction its time zone, date style, search path and limits; all of them end with it. Compiling a statement
-- that touches a few pages costs more than running it, so jit is off. A client that has frozen gives its locks up.
SELECT set_config('TimeZone', 'UTC', true),
       set_config('DateStyle', 'ISO', true),
       set_config('search_path', :search_path, true),
       set_config('row_security', 'off', true),
       set_config('client_encoding', 'UTF8', true),
       set_config('jit', 'off', true),
       set_config('lock_timeout', :lock_timeout, true),
       set_config('statement_timeout', :statement_timeout, true),
       set_config('idle_in_transaction_session_timeout', :idle_timeout, true)
