-- Of some URIs, those that an attachment still names.
SELECT DISTINCT a.uri::text AS uri FROM attachments a WHERE a.uri = ANY(CAST(:uris AS text[]))
