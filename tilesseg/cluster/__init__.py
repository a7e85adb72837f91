"""Workers: executors, Dask clusters here and elsewhere, and the queues of batch systems."""
