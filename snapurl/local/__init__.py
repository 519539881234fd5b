"""A whole cluster on this machine, of real servers: for `up`, the tests and the benchmarks."""
