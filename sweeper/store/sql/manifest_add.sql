-- Record a manifest as frozen; built again with the same content, it is the same manifest.
INSERT INTO sweeper.manifests (id, store, directory, as_of, policy_digest, eligible, state, frozen_at)
VALUES (:id, :store, :directory, :as_of, :policy_digest, :eligible, 'frozen', :now)
ON CONFLICT (id) DO NOTHING
RETURNING id
