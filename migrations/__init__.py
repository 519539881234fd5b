"""The schema of a shard: numbered SQL files, applied alike to every shard."""
