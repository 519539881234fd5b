"""The caches of links: L1 in a worker, L2 in Redis, and the invalidations that keep both right."""
