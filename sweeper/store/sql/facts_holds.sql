-- The holds that $named finds, for each of what is asked for: in force and known at as-of, released at an instant that is not
-- believed, or placed later. Each arm is one descent of an index, and an arm is not begun where those before have found enough.
SELECT h.matter, $account AS account_id, $conversation AS conversation_id, h.placed_at, h.released_at
FROM $asked
CROSS JOIN LATERAL (
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') > :as_of
       AND (h.placed_at IS NULL OR h.placed_at <= :as_of OR h.placed_at >= :plausible_before)
     ORDER BY COALESCE(h.released_at, 'infinity') LIMIT :most)
    UNION ALL
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') < :plausible_from
     ORDER BY COALESCE(h.placed_at > :as_of AND h.placed_at < :plausible_before, false) LIMIT :most)
    UNION ALL
    (SELECT h.* FROM sweeper.legal_holds h
     WHERE $named AND COALESCE(h.released_at, 'infinity') > :as_of
       AND h.placed_at > :as_of AND h.placed_at < :plausible_before
     ORDER BY COALESCE(h.released_at, 'infinity') LIMIT :most)
    LIMIT :most
) AS h
