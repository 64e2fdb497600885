-- Be the only one who gives leaf numbers until the transaction ends.
SELECT source FROM sweeper.ledger_sources ORDER BY source FOR UPDATE
