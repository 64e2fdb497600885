-- Whether any attachment names an object.
SELECT EXISTS (SELECT 1 FROM attachments a WHERE a.uri IS NOT NULL)
