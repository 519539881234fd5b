"""A local cluster of real PostgreSQL and Redis servers, for `snapurl up`, the tests and the benchmarks."""
