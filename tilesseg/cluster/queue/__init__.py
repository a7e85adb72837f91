"""Batch jobs: submit, cancel, logs."""
