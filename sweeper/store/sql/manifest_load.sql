-- A place for the rows of a manifest, to be checked all at once.
CREATE TEMPORARY TABLE sweeper_manifest (id $type NOT NULL, conversation_id text NOT NULL, expires_at timestamptz) ON COMMIT DROP
