-- When the latest manifest of a store was frozen.
SELECT max(m.frozen_at) AS at FROM sweeper.manifests m WHERE m.store = :store
