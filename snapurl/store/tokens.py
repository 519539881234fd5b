"""Tokens, which name attempts to write: 128 random bits each, in the form in which asyncpg sends them.

They are UUIDs by their type, not by a version of it. One of `uuid.uuid4` would cost three times as much.
"""

from __future__ import annotations

import os
import uuid

from asyncpg.pgproto.pgproto import UUID

_BYTES = 16


def random_token() -> uuid.UUID:
    return UUID(os.urandom(_BYTES))


def random_tokens(count: int) -> list[uuid.UUID]:
    """As many, from one draw."""
    drawn = os.urandom(_BYTES * count)
    return [UUID(drawn[first : first + _BYTES]) for first in range(0, len(drawn), _BYTES)]
