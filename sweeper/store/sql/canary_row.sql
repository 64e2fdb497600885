-- Insert one marked row, otherwise like one that is there; returns where it lies, its marks, and the columns children point to.
INSERT INTO $table AS canary_row ($columns)
SELECT $values FROM (VALUES (1)) one LEFT JOIN LATERAL (SELECT * FROM $table LIMIT 1) r ON true
RETURNING canary_row.tableoid::bigint AS canary_oid,
          ARRAY(SELECT m.mark FROM unnest(CAST(:marks AS text[])) AS m (mark)
                WHERE position(m.mark IN lower(canary_row::text)) > 0
                   OR position(encode(convert_to(m.mark, 'UTF8'), 'hex') IN canary_row::text) > 0) AS canary_marks
          $returned
