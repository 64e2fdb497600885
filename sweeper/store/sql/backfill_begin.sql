-- Record the plan of a backfill; done again under the same approval, it is the same plan.
INSERT INTO sweeper.backfills (store, since, until, slices, policy_digest, approval, expected, done_until, begun_at, seen_at)
VALUES (:store, :since, :until, :by, :policy_digest, :approval, :expected, :since, :now, :now)
ON CONFLICT (approval) DO NOTHING
