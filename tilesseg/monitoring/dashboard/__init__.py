"""The page `/tilesseg` in Dask's own dashboard; the same figures as JSON and as Prometheus metrics.

The driver reports events to the scheduler in batches (`publisher`). A plugin there (`plugin`) keeps a `RunBoard` for
each run (`boards`) and shows it. The phase of each tile comes with the heartbeats of the workers. Nothing happens per
task.
"""
