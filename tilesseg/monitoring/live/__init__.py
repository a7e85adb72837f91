"""The live state of a running job, made of its events: what bar, page and metrics draw."""
