-- How much plan and consent history there is, and whether there are conversations.
SELECT (SELECT count(*) FROM plan_changes) AS plan_changes,
       (SELECT count(*) FROM consent_events) AS consent_events,
       EXISTS (SELECT 1 FROM conversations) AS conversations
