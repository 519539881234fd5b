"""Generated codes, drawn so that the creates of one batch go to one shard.

A link with a generated code can live on any shard. So under load all codes that are generated until the next
batch is sent belong to one shard, the target. The target is the owner of a code drawn at random: each shard
gets its share of the ring, and within it every code is equally likely. Codes that were drawn but belong to
other shards are kept for their turn, so a create costs one draw on average, however many shards there are.
Without a target, a create under load costs the service 1.27 times the CPU time, and all processes together 1.6
times (four shards, two workers).

No code is generated for a shard that is known to be down. While it is down, only creates with an alias, or
whose Idempotency-Key has fixed the code, depend on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from snapurl.codes import key_of, random_code, random_codes

SPARE_CODES_MAX = 100  # kept per shard; the oldest is dropped
DRAWS_MAX = 200  # without a code of the target; then another shard becomes the target
DOWN_DRAWS_MAX = 100  # of codes of shards that are down; then one of these is used: perhaps all are down


class GeneratedCodes:
    """The generated codes of one domain, as keys.

    `owner` returns the shard of a key, `is_up` whether a shard answers, both as far as this process knows. `domain`
    is "" for the default domain.
    """

    def __init__(
        self,
        owner: Callable[[str], str],
        is_up: Callable[[str], bool],
        draw: Callable[[], str] = random_code,
        domain: str = "",
    ) -> None:
        self._owner = owner
        self._is_up = is_up
        self._draw = partial(_draw_key, domain, draw) if domain else draw
        self._domain = domain
        self._target: str | None = None
        self._spare: dict[str, deque[str]] = {}

    def one(self) -> str:
        """Returns a code of any shard that is up."""
        for _ in range(DOWN_DRAWS_MAX):
            code = self._draw()
            if self._is_up(self._owner(code)):
                break
        return code

    def many(self, count: int) -> list[str]:
        """Returns `count` codes of any shards that are up, from one draw of random bytes."""
        drawn = [key_of(self._domain, code) for code in random_codes(count)]
        return [code if self._is_up(self._owner(code)) else self.one() for code in drawn]

    def for_batch(self) -> str:
        """Returns a code of the target shard."""
        if self._target is None or not self._is_up(self._target):
            code = self.one()
            self._target = self._owner(code)
            return code
        if spare := self._spare.get(self._target):
            return spare.popleft()
        for _ in range(DRAWS_MAX):
            code = self._draw()
            shard = self._owner(code)
            if shard == self._target:
                return code
            self._spare.setdefault(shard, deque(maxlen=SPARE_CODES_MAX)).append(code)
        self._target = None  # it owns hardly any slots
        return self.one()

    def batch_sent(self, shard: str) -> None:
        """A batch has gone to `shard`: if that is the target, the next code chooses another."""
        if self._target == shard:
            self._target = None


def _draw_key(domain: str, draw: Callable[[], str]) -> str:
    return key_of(domain, draw())
