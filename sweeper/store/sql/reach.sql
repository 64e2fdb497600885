-- Whether an account is known, and how many conversations are of it, are the one named, and are both; NULL names nothing.
SELECT a.of_account,
       c.of_conversation,
       c.of_both,
       a.of_account > 0 OR EXISTS (SELECT FROM accounts known WHERE known.id = CAST(:account AS $account)) AS account_known
FROM (SELECT count(*) AS of_account FROM conversations WHERE account_id = CAST(:account AS $owner)) a,
     (SELECT count(*) AS of_conversation, count(*) FILTER (WHERE account_id = CAST(:account AS $owner)) AS of_both
      FROM conversations WHERE id = CAST(:conversation AS $conversation)) c
