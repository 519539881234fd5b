"""The pure part of SnapURL: which shard should hold a code, which one does, and how a slot moves.

No I/O, no clock, no randomness; nothing of `snapurl` or `tools` is imported here.
"""
