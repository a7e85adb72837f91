"""Benchmarks: whole jobs against peers, one part at a time, and how far a job can grow."""
