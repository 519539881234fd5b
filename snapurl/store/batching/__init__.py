"""Calls that share a round trip to a shard."""
