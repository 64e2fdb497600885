-- These ids have leaf numbers now.
UPDATE sweeper.ledger_sources SET unnumbered = unnumbered - CAST(:ids AS int8multirange) WHERE source = :source
