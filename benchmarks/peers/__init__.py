"""Whole jobs, file to file, against other tools and the bare network."""
