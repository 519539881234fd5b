"""Connections, heads and chunks: what a client may take from a worker."""
