"""Prefect flows over the DVC graph: order, retries, workers and the view; DVC owns the cache."""
