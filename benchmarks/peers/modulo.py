"""Where the Flask stack keeps a link: in database SHA-256(code) modulo their number."""

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
    """The database that has `code`."""
    return int.from_bytes(sha256(code.encode()).digest(), "big") % shards
