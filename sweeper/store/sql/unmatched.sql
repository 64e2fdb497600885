-- Of some holds or orders that name something, those by which nothing is found that is there. Their ids are spelt once each.
WITH named AS MATERIALIZED (
    SELECT p.*, $spelt FROM ($protections) AS p
)
SELECT p.id
FROM named p
WHERE NOT EXISTS (SELECT FROM accounts r WHERE $account)
  AND NOT EXISTS (SELECT FROM conversations r WHERE $conversation)
  AND NOT EXISTS (SELECT FROM conversations r WHERE $of_account)
  AND NOT EXISTS (SELECT FROM feedback r WHERE $feedback)
  AND NOT EXISTS (SELECT FROM feedback r WHERE $feedback_of_account)
ORDER BY p.id
