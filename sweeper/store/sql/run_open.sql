-- Record that a run has begun; done again after a lost answer, it is the same run.
INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, approval, started_at, kind, backfill_id)
VALUES (:store, :as_of, :policy_name, :policy_digest, :token, :approval, :started_at, :kind, :backfill_id)
ON CONFLICT (store, token) DO UPDATE SET started_at = excluded.started_at
RETURNING id
