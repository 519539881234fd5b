"""A cluster on separate hosts, each a network namespace, with a switch between them that fails on demand."""
