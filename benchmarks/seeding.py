"""Seed links for measurements. Each shard generates the links of its slots."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import asyncpg

# Code n is the same on every machine. The owner "" is that of an anonymous create.
_FILL = """
INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token)
SELECT c.slot, c.code, 1, 'https://www.example.org/articles/2026/' || c.code || '?utm_source=benchmark', '{}', 302,
       now(), '', gen_random_uuid()
  FROM (SELECT code, (get_byte(h, 0) * 64 + get_byte(h, 1) / 4)::smallint AS slot
          FROM (SELECT code, sha256(convert_to(code, 'UTF8')) AS h
                  FROM (SELECT 'n' || lpad(n::text, 7, '0') AS code
                          FROM generate_series($1::bigint, $2::bigint - 1) AS n) AS codes) AS hashes) AS c
  JOIN slots s ON s.slot = c.slot AND s.state = 'owned'
 ORDER BY c.slot, c.code
ON CONFLICT DO NOTHING
"""


def code_of(number: int) -> str:
    """Returns the code of a seeded link."""
    return f"n{number:07d}"


def url_of(code: str) -> str:
    """Returns the address of a seeded link."""
    return f"https://www.example.org/articles/2026/{code}?utm_source=benchmark"


async def seed(dsns: Mapping[str, str], first: int, end: int) -> int:
    """Creates links `first` to `end - 1`, then vacuums and flushes the tables. Returns how many links are new."""
    made = await asyncio.gather(*(_fill(dsn, first, end) for dsn in dsns.values()))
    await asyncio.to_thread(os.sync)  # else a later fsync, such as Redis's, would wait for it
    return sum(made)


async def _fill(dsn: str, first: int, end: int) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        tag: str = await connection.execute(_FILL, first, end, timeout=600)
        await settle(connection)
        return int(tag.rpartition(" ")[2])
    finally:
        await connection.close()


async def settle(connection: asyncpg.Connection) -> None:
    """Finishes pending maintenance work, so that it does not disturb a measurement."""
    await connection.execute("VACUUM (ANALYZE) links, click_totals", timeout=600)
    await connection.execute("CHECKPOINT", timeout=600)
