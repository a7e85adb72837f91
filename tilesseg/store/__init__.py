"""The run directory: what is planned, stored, done. The truth of a run."""
