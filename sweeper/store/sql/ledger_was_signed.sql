-- Whether any checkpoint is signed.
SELECT EXISTS (SELECT FROM sweeper.checkpoints c WHERE c.signed_by IS NOT NULL)
