"""Training manifests: which messages a training run may use, frozen, and what must be dropped since."""
