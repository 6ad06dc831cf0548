"""How any stage runs: engines, manifests, storage, progress."""
