"""Training manifests: which messages a training run may use, and what of them may leave the store."""
