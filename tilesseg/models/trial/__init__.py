"""One trial of a network before its first tile: a few small batches that show whether its spec is true."""
