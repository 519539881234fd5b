"""Executes random operations on links through any `Client`, and records their history."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Sequence

from tests.drills.history.checker import Fields, Kind, Operation, Outcome
from tests.drills.history.clients import Answer, Client

KEYS_AT_ONCE = 40
OPERATIONS_PER_KEY = 40
MIX = {
    Kind.READ: 38, Kind.CHANGE: 30, Kind.CREATE: 14, Kind.DELETE: 4, Kind.RESTORE: 7, Kind.TRANSFER: 3,
    Kind.HISTORY: 4,
}  # fmt: skip
OPTIONS: dict[str, Sequence[object]] = {
    "enabled": (False, True),
    "max_clicks": (None, 1, 1_000),
    "tags": ([], ["a"], ["b", "c"]),
}
PASSWORD_SHARE = 0.02  # of the changes: hashing one takes longer than all else


class Recorder:
    """Records operations on a sliding window of links.

    `account` is that of new links, `accounts` those to which transfers give them.
    """

    def __init__(
        self, codes: Sequence[str], rng: random.Random, account: str, accounts: Sequence[str]
    ) -> None:
        self.history: list[tuple[str, Operation]] = []
        self._codes = codes
        self._rng = rng
        self._accounts = accounts
        self._made: Fields = {
            "enabled": True, "max_clicks": None, "tags": [], "has_password": False, "account": account,
        }  # fmt: skip
        self._titles = itertools.count(1)

    async def work(self, client: Client, stop: asyncio.Event) -> None:
        """Runs one client until `stop`."""
        seen: dict[str, int] = {}
        while not stop.is_set():
            place = len(self.history) // OPERATIONS_PER_KEY + self._rng.randrange(KEYS_AT_ONCE)
            code = self._codes[place % len(self._codes)]
            await self._one(client, code, seen)

    async def read_histories(self, clients: Sequence[Client]) -> None:
        """Reads the history of each link. So the check knows who made which version, also if an answer was lost."""
        codes = iter({code for code, _ in self.history})

        async def read(client: Client) -> None:
            for code in codes:
                await self._record(code, Kind.HISTORY, client.history(code))

        await asyncio.gather(*map(read, clients))

    async def _one(self, client: Client, code: str, seen: dict[str, int]) -> None:
        (kind,) = self._rng.choices(list(MIX), list(MIX.values()))
        known = seen.get(code) if self._rng.random() < 0.5 else None
        match kind:
            case Kind.CREATE:
                title = self._title()
                answer = await self._record(
                    code, kind, client.create(code, title), sets={**self._made, **title}
                )
            case Kind.CHANGE:
                fields = {**self._title(), **self._options()}
                answer = await self._record(
                    code, kind, client.change(code, fields, known), sets=fields, if_match=known
                )
            case Kind.DELETE:
                answer = await self._record(code, kind, client.delete(code, known), if_match=known)
            case Kind.TRANSFER:
                account = self._rng.choice(self._accounts)
                answer = await self._record(
                    code,
                    kind,
                    client.transfer(code, account, known),
                    sets={"account": account},
                    if_match=known,
                )
            case Kind.READ:
                answer = await self._record(code, kind, client.read(code))
            case _:
                answer = await self._record(code, Kind.HISTORY, client.history(code))
                if kind is Kind.RESTORE and answer.log and answer.log[-1].kind is Kind.DELETE:
                    deleted = answer.log[-1].version
                    answer = await self._record(code, kind, client.restore(code, deleted), if_match=deleted)
        if answer.version is not None:
            seen[code] = answer.version

    def _title(self) -> Fields:
        """Returns a title that no other write sets."""
        return {"title": f"title {next(self._titles)}"}

    def _options(self) -> Fields:
        """Returns one other field to change, or none."""
        if self._rng.random() < PASSWORD_SHARE:
            return {"has_password": self._rng.random() < 0.7}
        name = self._rng.choice([*OPTIONS, ""])
        return {name: self._rng.choice(OPTIONS[name])} if name else {}

    async def _record(
        self,
        code: str,
        kind: Kind,
        call: Awaitable[Answer],
        sets: Fields | None = None,
        if_match: int | None = None,
    ) -> Answer:
        began = time.monotonic()
        answer = await call
        ended = time.monotonic()
        done = answer.outcome is Outcome.DONE
        self.history.append(
            (
                code,
                Operation(
                    kind,
                    answer.outcome,
                    began,
                    ended,
                    sets or {},
                    answer.version if done else None,
                    if_match,
                    answer.shown,
                    answer.log,
                ),
            )
        )
        return answer
