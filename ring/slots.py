"""Slots: the 16,384 fixed parts of the key space. A slot never splits, and a code never changes its slot."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

SLOT_BITS: Final = 14
SLOT_COUNT: Final = 1 << SLOT_BITS
CODES_CACHED: Final = 4_096  # one request needs the slot of its code several times


@lru_cache(maxsize=CODES_CACHED)
def slot_of(code: str) -> int:
    """Returns the slot of `code`, 0 to 16,383: the first 14 bits of SHA-256 of its UTF-8 bytes, big-endian.

    The shards store this number with every row and never compute it. Changing it orphans every link.
    """
    return int.from_bytes(sha256(code.encode()).digest()[:2], "big") >> (16 - SLOT_BITS)
