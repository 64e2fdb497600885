-- Release the holds of a matter, or one hold, that are not released yet.
UPDATE sweeper.legal_holds SET released_at = :released_at
WHERE released_at IS NULL AND (matter = :matter OR id = :id)
RETURNING id, matter, account_id, conversation_id, placed_at, released_at
