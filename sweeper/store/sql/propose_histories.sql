-- Per account of the range: its stays on plans, its epochs of consent, and the gaps between them, in which `opened` is NULL. A
-- proposal only: what is found here is decided again from the facts.
WITH members AS (
    SELECT a.id, a.created_at, a.closed_at FROM accounts a WHERE $accounts
), stays AS (
$stays
), epochs AS (
$epochs
), segments AS (
    SELECT e.account_id, e.purpose, e.opened, e.closed, e.entered_at, e.opened AS since, COALESCE(e.closed, 'infinity') AS until
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, NULL, NULL, NULL,
           COALESCE(lag(e.closed) OVER (PARTITION BY e.account_id, e.purpose ORDER BY e.opened), '-infinity'), e.opened
    FROM epochs e
    UNION ALL
    SELECT e.account_id, e.purpose, NULL, NULL, NULL, max(e.closed), 'infinity'
    FROM epochs e
    GROUP BY e.account_id, e.purpose
    HAVING bool_and(e.closed IS NOT NULL)
    UNION ALL
    SELECT m.id, p.purpose, NULL, NULL, NULL, '-infinity', 'infinity'
    FROM members m CROSS JOIN unnest($purposes) AS p (purpose)
    WHERE NOT EXISTS (SELECT 1 FROM epochs e WHERE e.account_id = m.id AND e.purpose = p.purpose)
)
