"""Who works: executors, Dask clusters, queues."""
