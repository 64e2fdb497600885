-- Number the transaction, to tell what it writes; and whether the server counts what tables are written to.
SELECT pg_current_xact_id()::xid::text AS began, current_setting('track_counts')::boolean AS counted
