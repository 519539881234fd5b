"""A cluster on hosts of its own: each in a network namespace, with a switch between them that fails on demand."""
