"""How many people clicked a link on a day: read from Redis for the links of a delivery. An estimate.

Workers add digests of visitors to a HyperLogLog per link and day, before or with the clicks. So its count, read
when the clicks are delivered, has the visitors of these clicks, and the shard keeps the greatest count that it was
told. If Redis does not answer, clicks are delivered without.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.stream import visitors_key
from snapurl.model import ClicksBySlot
from snapurl.telemetry.metrics import REDIS_FAILURES

KEYS_PER_CALL = 500  # Redis does nothing else meanwhile

_COUNT = (files("snapurl.clicks") / "lua" / "visitors.lua").read_text(encoding="utf-8")


class VisitorReader:
    def __init__(self, namespace: str, redis: Redis) -> None:
        self._namespace = namespace
        self._count = redis.register_script(_COUNT)

    async def read(self, rows_of: ClicksBySlot) -> Mapping[tuple[str, date], int]:
        """Returns the visitors of the links and days of these rows as far as Redis knows and tells them."""
        wanted = iter(dict.fromkeys((row.code, row.day) for rows in rows_of.values() for row in rows))
        found: dict[tuple[str, date], int] = {}
        try:
            while part := list(islice(wanted, KEYS_PER_CALL)):
                keys = [visitors_key(self._namespace, day, code) for code, day in part]
                counts: Any = await self._count(keys=keys)
                found.update({each: count for each, count in zip(part, counts, strict=True) if count})
        except (RedisError, OSError, TimeoutError):
            REDIS_FAILURES.labels("visitors").inc()
        return found
