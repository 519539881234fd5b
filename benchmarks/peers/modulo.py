"""Placement of the Flask stack: SHA-256(code) modulo the number of databases."""

from __future__ import annotations

from hashlib import sha256

DATABASE = "peer"
SCHEMA = """
CREATE TABLE IF NOT EXISTS links (
    code text COLLATE "C" PRIMARY KEY,
    url text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)
"""


def shard_of(code: str, shards: int) -> int:
    """Returns the index of the database that holds `code`."""
    return int.from_bytes(sha256(code.encode()).digest(), "big") % shards
