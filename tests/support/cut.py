"""Cuts connections at a chosen await of a call, which a test could not hit by timing."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from itertools import count
from typing import Any, TypeVar

import asyncpg
import pytest

T = TypeVar("T")


@types.coroutine
def cut_at(
    call: Awaitable[T], at: int, cut: Callable[[], object], *, answered: bool
) -> Generator[Any, Any, tuple[T, bool]]:
    """Awaits `call` and calls `cut` at suspension number `at`, counted from 1.

    It does so when the suspension begins or, if `answered`, when it ends and before the call continues. Returns the
    result, and whether there was such a suspension.
    """
    steps = call.__await__()
    resume: Callable[[], Any] = partial(steps.send, None)
    suspensions = 0
    while True:
        try:
            waits_for = resume()
        except StopIteration as done:
            return done.value, suspensions >= at
        suspensions += 1
        if suspensions == at and not answered:
            cut()
        try:
            yield waits_for
        except BaseException as error:
            resume = partial(steps.throw, error)
        else:
            resume = partial(steps.send, None)
        if suspensions == at and answered:
            cut()


async def cut_at_each(call: Callable[[int], Awaitable[bool]]) -> int:
    """Calls `call` with 1, 2, … until it reports that there was no such await. Returns how many there were."""
    for at in count(1):
        async with asyncio.timeout(60):
            if not await call(at):
                return at - 1
    raise AssertionError


class Connections:
    """All connections opened after this object was created."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._made: list[Any] = []
        connect = asyncpg.connect

        async def remembered(*args: Any, **options: Any) -> Any:
            self._made.append(await connect(*args, **options))
            return self._made[-1]

        monkeypatch.setattr(asyncpg, "connect", remembered)

    def cut(self) -> None:
        """Terminates all recorded connections and clears the record."""
        for connection in self._made:
            connection.terminate()
        self._made.clear()
