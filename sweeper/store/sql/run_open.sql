-- Record that a run has begun.
INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, approval, started_at)
VALUES (:store, :as_of, :policy_name, :policy_digest, :token, :approval, :started_at)
RETURNING id
