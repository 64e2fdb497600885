-- The eligible messages in total order; their text only where it was asked for. Ids become text after the sort: they are
-- shorter before it, and the server writes them while the client reads.
SELECT r.id::text AS message_id,
       r.conversation_id::text AS conversation_id,
       r.account_id::text AS account_id,
       r.created_at,
       r.author,
       r.kind,
       r.plan,
       r.platform,
       r.event_id AS consent_event_id,
       NULLIF(LEAST(r.due, r.capped_at), 'infinity') AS expires_at$text
FROM (
    SELECT r.*
    FROM ($reasoned) AS r
    WHERE r.reason IS NULL
    ORDER BY $by_conversation, r.created_at, $by_message
) AS r
