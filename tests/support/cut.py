"""Cuts a connection at a chosen await of a call, which no timing of a test could hit."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


@types.coroutine
def cut_at(
    call: Awaitable[T], at: int, cut: Callable[[], object], *, answered: bool
) -> Generator[Any, Any, tuple[T, bool]]:
    """Awaits `call` and calls `cut` at suspension number `at`, counted from 1.

    It does so as the suspension begins or, if `answered`, once it is over and before the call goes on. Returns the
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
