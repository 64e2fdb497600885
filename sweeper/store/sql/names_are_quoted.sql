-- Whether a session of this role in this database begins with every name quoted, whatever this transaction has set.
SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings s WHERE s.name = 'quote_all_identifiers'
