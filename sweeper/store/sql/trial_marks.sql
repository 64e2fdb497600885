-- Which marks stand in rows of a table that this transaction, or one since it began, has written; also as bytes in hexadecimal.
SELECT m.mark, count(*) AS rows
FROM ONLY $table canary_row
JOIN unnest(CAST(:marks AS text[])) AS m (mark)
  ON position(m.mark IN lower(canary_row::text)) > 0
  OR position(encode(convert_to(m.mark, 'UTF8'), 'hex') IN canary_row::text) > 0
WHERE age(canary_row.xmin) <= age(CAST(CAST(:began AS text) AS xid))
GROUP BY m.mark
