"""Measurements: micro-benchmarks and the load suite."""
