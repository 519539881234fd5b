"""How late clicks are counted: the age of the oldest entry of the click stream."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.stream import name_key
from snapurl.model import CLICKS_LATE_S, Lag

LUA = (files("snapurl.clicks") / "lua" / "lag.lua").read_text(encoding="utf-8")
"""The function `lag` of a script in Redis; `lag_of` reads what it returns."""


def lag_of(answer: Sequence[Any]) -> Lag:
    """Returns the lag that the function in LUA has returned."""
    first, entries, now_s = answer
    if first is None:
        return Lag(0.0, entries)
    return Lag(max(0.0, now_s - int(first.partition(b"-")[0]) / 1000), entries)


class LagReader:
    """Reads the lag in one round trip. Only `read` raises: RedisError, OSError or TimeoutError."""

    def __init__(self, namespace: str, redis: Redis) -> None:
        self._keys = [name_key(namespace)]
        self._script = redis.register_script(f"{LUA}return lag(KEYS[1])")

    async def read(self) -> Lag:
        answer: Any = await self._script(keys=self._keys)
        return lag_of(answer)

    async def read_or_none(self) -> Lag | None:
        """Returns the lag, None if Redis does not say."""
        try:
            return await self.read()
        except (RedisError, OSError, TimeoutError):
            return None

    async def fault(self) -> str | None:
        """Returns why clicks count as late, None if they do not or Redis does not say."""
        lag = await self.read_or_none()
        is_late = lag is not None and lag.is_late
        return f"clicks have waited to be counted for more than {CLICKS_LATE_S:.0f} s" if is_late else None
