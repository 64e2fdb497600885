-- The legal holds, with when they are released, and the erasure orders.
SELECT 'hold' AS kind, h.matter AS name, h.account_id, h.conversation_id, h.released_at FROM sweeper.legal_holds h
UNION ALL
SELECT 'order', o.reference, o.account_id, o.conversation_id, NULL FROM sweeper.erasure_orders o
