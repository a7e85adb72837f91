"""Carrying a job out: the driver, its workers, the products."""
