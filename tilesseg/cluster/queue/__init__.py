"""Batch jobs of SLURM, PBS and Kubernetes: their scripts, submitting, cancelling, logs."""
