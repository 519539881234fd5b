"""Tokens, which identify attempts to write: 128 random bits each, as the type that asyncpg sends.

They are UUIDs by type, without a version. `uuid.uuid4` would cost three times as much.
"""

from __future__ import annotations

import os
import uuid

from asyncpg.pgproto.pgproto import UUID

_BYTES = 16


def random_token() -> uuid.UUID:
    return UUID(os.urandom(_BYTES))


def random_tokens(count: int) -> list[uuid.UUID]:
    """Returns `count` tokens from one read of the random source."""
    drawn = os.urandom(_BYTES * count)
    return [UUID(drawn[first : first + _BYTES]) for first in range(0, len(drawn), _BYTES)]
