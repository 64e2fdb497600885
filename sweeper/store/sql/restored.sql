-- The legal holds that are not released, and the erasure orders.
SELECT 'hold' AS kind, h.matter AS name, h.account_id, h.conversation_id FROM sweeper.legal_holds h WHERE h.released_at IS NULL
UNION ALL
SELECT 'order', o.reference, o.account_id, o.conversation_id FROM sweeper.erasure_orders o
