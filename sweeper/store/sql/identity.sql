-- Which database this is.
SELECT current_database() AS name, d.oid::bigint AS oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()
