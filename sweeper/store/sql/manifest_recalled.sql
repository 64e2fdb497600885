-- Note when a manifest was last looked through.
UPDATE sweeper.manifests SET recalled_at = :now WHERE id = :id
