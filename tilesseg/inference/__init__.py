"""One tile on a worker: read, predict, blend, decide, write."""
