-- Feedback rows that an erasure order names whose date has come, and that are not found by their age.
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_conversation
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND ($aged) IS NOT TRUE
UNION
SELECT f.id FROM sweeper.erasure_orders o JOIN feedback f ON $names_account
WHERE o.due_at <= :as_of AND (o.store IS NULL OR o.store = :store) AND o.conversation_id IS NULL AND ($aged) IS NOT TRUE
