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
    Kind.HISTORY: 4, Kind.RENAME: 3,
}  # fmt: skip
OPTIONS: dict[str, Sequence[object]] = {
    "enabled": (False, True),
    "max_clicks": (None, 1, 1_000),
    "tags": ([], ["a"], ["b", "c"]),
}
RENAME_S_MAX, RENAME_PAUSE_S = 60.0, 0.05
PASSWORD_SHARE = 0.02  # of the changes: hashing one takes longer than all else


def is_open(answer: Answer, is_repeat: bool) -> bool:
    """Whether a rename may still be half done: a repeat of one whose outcome was unknown may be refused for now."""
    return answer.outcome is Outcome.UNKNOWN or (is_repeat and answer.outcome is Outcome.REFUSED)


class Recorder:
    """Records operations on a sliding window of links.

    `account` is that of new links, `accounts` those to which transfers give them. `password_share` of the
    changes set or remove a password.
    """

    def __init__(
        self,
        codes: Sequence[str],
        rng: random.Random,
        account: str,
        accounts: Sequence[str],
        password_share: float = PASSWORD_SHARE,
    ) -> None:
        self.history: list[tuple[str, Operation]] = []
        self._codes = codes
        self._rng = rng
        self._accounts = accounts
        self._password_share = password_share
        self._made: Fields = {
            "enabled": True, "max_clicks": None, "tags": [], "has_password": False, "account": account,
            "renamed_to": None,
        }  # fmt: skip
        self._titles = itertools.count(1)
        self._new_codes = (f"renamed{number}" for number in itertools.count(1))

    async def work(self, client: Client, stop: asyncio.Event) -> None:
        """Runs one client until `stop`."""
        seen: dict[str, int] = {}
        deleted: dict[str, int] = {}
        while not stop.is_set():
            place = len(self.history) // OPERATIONS_PER_KEY + self._rng.randrange(KEYS_AT_ONCE)
            code = self._codes[place % len(self._codes)]
            await self._one(client, code, seen, deleted)

    async def read_histories(self, clients: Sequence[Client]) -> None:
        """Reads the history of each link. So the check knows who made which version, also if an answer was lost."""
        codes = iter({code for code, _ in self.history})

        async def read(client: Client) -> None:
            for code in codes:
                await self._record(code, Kind.HISTORY, client.history(code))

        await asyncio.gather(*map(read, clients))

    async def _one(self, client: Client, code: str, seen: dict[str, int], deleted: dict[str, int]) -> None:
        """`seen` has the newest version of each link that the client knows, `deleted` the last that was deleted."""
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
            case Kind.RENAME:
                await self._rename(client, code)
                return
            case Kind.READ:
                answer = await self._record(code, kind, client.read(code))
            case Kind.RESTORE if code in deleted and self._rng.random() < 0.5:
                answer = await self._restore(client, code, deleted[code])  # which may be over
            case _:
                answer = await self._record(code, Kind.HISTORY, client.history(code))
                if answer.log and answer.log[-1].kind is Kind.DELETE:
                    deleted[code] = answer.log[-1].version
                    if kind is Kind.RESTORE:
                        answer = await self._restore(client, code, deleted[code])
        if answer.version is not None:
            seen[code] = answer.version

    async def _restore(self, client: Client, code: str, deleted: int) -> Answer:
        return await self._record(code, Kind.RESTORE, client.restore(code, deleted), if_match=deleted)

    async def _rename(self, client: Client, code: str) -> None:
        """Renames a link to a code of its own. Goes on if the outcome is unknown: that must finish the rename."""
        new = next(self._new_codes)
        began = time.monotonic()
        answer, is_repeat = await client.rename(code, new), False
        while is_open(answer, is_repeat) and time.monotonic() < began + RENAME_S_MAX:
            await asyncio.sleep(RENAME_PAUSE_S)
            answer, is_repeat = await client.rename(code, new), True
        ended = time.monotonic()
        outcome = Outcome.UNKNOWN if is_open(answer, is_repeat) else answer.outcome
        made = answer.shown
        shown = {name: value for name, value in made.items() if name != "renamed_to"}
        sets = {"renamed_to": new}
        self.history.append((code, Operation(Kind.RENAME, outcome, began, ended, sets, shown=shown)))
        if answer.version == 1:
            self.history.append((new, Operation(Kind.CREATE, outcome, began, ended, made, 1, shown=made)))
            await self._record(new, Kind.READ, client.read(new))

    def _title(self) -> Fields:
        """Returns a title that no other write sets."""
        return {"title": f"title {next(self._titles)}"}

    def _options(self) -> Fields:
        """Returns one other field to change, or none."""
        if self._rng.random() < self._password_share:
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
