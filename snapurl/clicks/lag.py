"""How late clicks are counted: the age of the oldest entry of the click stream."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.stream import name_key

LATE_S = 60.0  # from here on `/health/ready` says that clicks are late

_LAG = (files("snapurl.clicks") / "lua" / "lag.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Lag:
    """`seconds` is the age of the oldest entry that is not counted yet, 0 if there is none."""

    seconds: float
    entries: int

    @property
    def is_late(self) -> bool:
        return self.seconds > LATE_S


class LagReader:
    """Reads the lag in one round trip. `read` raises RedisError, OSError or TimeoutError; `fault` never raises."""

    def __init__(self, namespace: str, redis: Redis) -> None:
        self._keys = [name_key(namespace)]
        self._script = redis.register_script(_LAG)

    async def read(self) -> Lag:
        answer: Any = await self._script(keys=self._keys)
        first, entries, now_s = answer
        if first is None:
            return Lag(0.0, entries)
        return Lag(max(0.0, now_s - int(first.partition(b"-")[0]) / 1000), entries)

    async def fault(self) -> str | None:
        """Returns why clicks count as late, None if they do not or Redis does not say."""
        try:
            lag = await self.read()
        except (RedisError, OSError, TimeoutError):
            return None
        return f"clicks have waited to be counted for more than {LATE_S:.0f} s" if lag.is_late else None
