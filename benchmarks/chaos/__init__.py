"""Chaos: seeded runs of small tiles under faults, judged by laws: `python -m benchmarks.chaos`, `make chaos N=200`."""
