-- Attachments whose URI is not written as its canonical form is: no index can tell what they name.
SELECT a.uri::text AS uri FROM attachments a WHERE a.uri ~ '$odd'
