"""Creates that come at the same time go to their shard in one call.

Theory. A create costs a shard mostly what any call costs: a round trip, a transaction, a flush to the disk. So if
creates come in company, each waits for others that go to the same shard; a create that comes alone goes at once.
While a call is under way, those who come wait for its end, HOLD_S at most. Clients that were answered together come
back together, so who was answered lately is expected, for GATHER_S. Nobody waits when all are there: when no create
is at a shard, and nobody is expected any more. Under load clients so come to form one round, and their creates to
be one call.

Creates whose code we make up can go to any shard, and all that come within GATHER_S go to one: they get codes whose
slots it owns. The shard is that of a code drawn at random, so each shard gets the share that its slots are of the
ring, and within it every code is as likely as any other. Codes that were drawn and belong to other shards are
kept for their turn, so that a create costs one draw in the end, however many shards there are. None is made up for
a shard that is known not to serve: while it is away only those wait for it who want an alias of its, or whose
Idempotency-Key has fixed the code.

Each create has an answer of its own: the function says per link what came of it. When a call fails, all its creates
have failed as if each had been sent alone, and whoever asked repeats his own by its token.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snapurl.codes import random_code, random_codes
from snapurl.model import NewLink
from snapurl.store.batching.columns import create_row, create_rows
from snapurl.store.cluster.pool import Pool, ShardFailed, too_busy
from snapurl.telemetry.logs import detached_task

GATHER_S = 0.004
HOLD_S = 0.020
COMPANY = 4  # creates, unanswered or answered lately, from which on those that come wait for others
LINKS_MAX = 32  # in one call, which holds a lock on the slot of each
WAITING_MAX = 1_000  # unanswered creates per shard; then 503, as when no connection comes free
SPARE_CODES_MAX = 100  # kept per shard; the oldest goes
DRAWS_MAX = 200  # in vain for one shard; then any other will do
SILENT_DRAWS_MAX = 100  # codes of shards that do not serve; then one of these: perhaps none does

Row = Mapping[str, Any]
Waiting = tuple[NewLink, asyncio.Future[Row]]


class Codes:
    """Made-up codes, gathered at one shard after the other; none of a shard that is known not to serve."""

    def __init__(
        self, owner: Callable[[str], str], draw: Callable[[], str], serves: Callable[[str], bool]
    ) -> None:
        self._owner = owner
        self._draw = draw
        self._serves = serves
        self._shard: str | None = None  # where codes are gathered now
        self._spare: dict[str, deque[str]] = {}

    def any(self) -> str:
        """A code of any shard that serves."""
        for _ in range(SILENT_DRAWS_MAX):
            code = self._draw()
            if self._serves(self._owner(code)):
                break
        return code

    def some(self, count: int) -> list[str]:
        """As many codes of any shards that serve, from one draw."""
        drawn = random_codes(count)
        return [code if self._serves(self._owner(code)) else self.any() for code in drawn]

    def gathered(self) -> str:
        """A code of the shard at which codes are gathered."""
        if self._shard is None or not self._serves(self._shard):
            code = self.any()
            self._shard = self._owner(code)
            return code
        if spare := self._spare.get(self._shard):
            return spare.popleft()
        for _ in range(DRAWS_MAX):
            code = self._draw()
            shard = self._owner(code)
            if shard == self._shard:
                return code
            self._spare.setdefault(shard, deque(maxlen=SPARE_CODES_MAX)).append(code)
        self._shard = None  # it has hardly any slots, or none any more
        return self.any()

    def sent_off(self, shard: str) -> None:
        """A call has gone to the shard: if codes were gathered at it, the next are gathered at another."""
        if self._shard == shard:
            self._shard = None


@dataclass(slots=True, eq=False)
class _Group:
    """Clients that were answered together."""

    expected: int


class Company:
    """How many clients there are at this time: those without an answer, and those who are expected."""

    def __init__(self) -> None:
        self.unanswered = 0
        self.expected = 0
        self._groups: deque[_Group] = deque()  # that were answered within GATHER_S

    def __len__(self) -> int:
        return self.unanswered + self.expected

    def come(self) -> None:
        """A create: that of a client who was expected, if anybody was."""
        self.unanswered += 1
        if self._groups:
            self._groups[0].expected -= 1
            self.expected -= 1
            if not self._groups[0].expected:
                self._groups.popleft()

    def answered(self, count: int) -> None:
        self.unanswered -= count
        self.expected += count
        group = _Group(count)
        self._groups.append(group)
        asyncio.get_running_loop().call_later(GATHER_S, self._give_up, group)

    def _give_up(self, group: _Group) -> None:
        if group.expected:
            self.expected -= group.expected
            self._groups.remove(group)


@dataclass(slots=True)
class _Line:
    """The creates of one shard: those that wait for company, and how many have no answer yet, these included."""

    waiting: list[Waiting] = field(default_factory=list)
    unanswered: int = 0
    timer: asyncio.TimerHandle | None = None


class Together:
    """The creates of one process, by shard. `owner` says which shard a code belongs to, `serves` whether a shard
    serves, both as far as is known."""

    def __init__(
        self,
        owner: Callable[[str], str],
        serves: Callable[[str], bool],
        draw: Callable[[], str] = random_code,
    ) -> None:
        self._codes = Codes(owner, draw, serves)
        self._lines: dict[Pool, _Line] = {}
        self._company = Company()
        self._waiting = 0  # in all lines
        self._round: asyncio.TimerHandle | None = None  # to the end of which those in the lines wait
        self._calls: set[asyncio.Task[None]] = set()

    def new_code(self) -> str:
        """A code that nobody can guess; in company, one of the shard to which the others of this moment go."""
        return self._codes.gathered() if len(self._company) >= COMPANY else self._codes.any()

    def new_codes(self, count: int) -> list[str]:
        """As many codes that nobody can guess, for links that are created in bulk."""
        return self._codes.some(count)

    async def create(self, pool: Pool, new: NewLink) -> Sequence[Row]:
        """The row of the shard's answer. Raises ShardFailed."""
        line = self._lines.setdefault(pool, _Line())
        if line.unanswered >= WAITING_MAX:
            raise too_busy(pool.name)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Row] = loop.create_future()
        in_company = len(self._company) >= COMPANY
        self._company.come()
        line.unanswered += 1
        line.waiting.append((new, done))
        self._waiting += 1
        if not in_company or len(line.waiting) == LINKS_MAX:
            self._send_off(pool, line)
        elif self._waiting == len(self._company):
            self._send_all_off()
        else:
            if line.timer is None:
                line.timer = loop.call_later(HOLD_S, self._send_off, pool, line)
            self._gather()
        return (await done,)

    def _gather(self) -> None:
        """Unless a call is under way, gives those who are expected the time to come."""
        if self._waiting and self._waiting == self._company.unanswered and self._round is None:
            self._round = asyncio.get_running_loop().call_later(GATHER_S, self._send_all_off)

    def _send_all_off(self) -> None:
        if self._round is not None:
            self._round.cancel()
            self._round = None
        for pool, line in list(self._lines.items()):
            if line.waiting:
                self._send_off(pool, line)

    def _send_off(self, pool: Pool, line: _Line) -> None:
        """Calls the shard for all who wait for it."""
        items, line.waiting = line.waiting, []
        self._waiting -= len(items)
        if line.timer is not None:
            line.timer.cancel()
            line.timer = None
        self._codes.sent_off(pool.name)
        call = detached_task(self._send(pool, line, items), f"creates on {pool.name}")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _send(self, pool: Pool, line: _Line, items: Sequence[Waiting]) -> None:
        try:
            await _answer(pool, items)
        except ShardFailed as error:
            _fail(items, error)
        except Exception:  # one of them is not what PostgreSQL takes: the others must not suffer for it
            for item in items:
                try:
                    await _answer(pool, [item])
                except Exception as error:
                    _fail([item], error)
        finally:
            self._answered(pool, line, len(items))

    def _answered(self, pool: Pool, line: _Line, count: int) -> None:
        self._company.answered(count)
        self._gather()
        line.unanswered -= count
        if not line.unanswered:
            del self._lines[pool]  # its shard may go


async def _answer(pool: Pool, items: Sequence[Waiting]) -> None:
    rows = await _call(pool, [new for new, _ in items])
    for (_, done), row in zip(items, rows, strict=True):
        if not done.done():  # its client may have gone away
            done.set_result(row)


def _fail(items: Sequence[Waiting], error: Exception) -> None:
    for _, done in items:
        if not done.done():
            done.set_exception(error)


async def _call(pool: Pool, links: Sequence[NewLink]) -> Sequence[Row]:
    return [await create_row(pool, links[0])] if len(links) == 1 else await create_rows(pool, links)
