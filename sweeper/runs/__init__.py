"""A run from its lease to its close: preview, guards, batches, backfills, and purging again after a restore."""
