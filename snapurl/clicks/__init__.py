"""Clicks, from the worker that counts them to the shard that keeps them."""
