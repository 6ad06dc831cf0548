"""Match, count, balance: a pool and metadata in, a balanced and documented subset out."""
