"""The run directory on disk, the truth of a run: its mask, ledger and locks."""
