-- Sort and join in at least 64 MB until the transaction ends: by far the most of a manifest's time is one sort of its rows.
SELECT set_config('work_mem', GREATEST(pg_size_bytes(current_setting('work_mem')) / 1024, 65536) || 'kB', true)
