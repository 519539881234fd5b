"""The report of the drill: a line for each step, with figures, and what of it is not as promised."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.drills.containers.engine import CommandFailed
from tests.drills.containers.traffic import Window


@dataclass
class Step:
    """One step: what it says, and the promises that it has found broken."""

    name: str
    figures: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def note(self, figure: str) -> None:
        self.figures.append(figure)

    def expect(self, kept: bool, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    def none_failed(self, window: Window) -> None:
        self.note(str(window))
        self.expect(not window.failed, f"{len(window.failed)} requests failed")


class Report:
    """Prints each step when it ends. `broken` counts broken promises."""

    def __init__(self) -> None:
        self.broken = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Yields a step. A command that fails in it is a broken promise, and the drill goes on."""
        step, began = Step(name), time.monotonic()
        try:
            yield step
        except CommandFailed as error:
            step.broken.append(str(error))
        seconds = time.monotonic() - began
        print(f"{seconds:6.1f} s  {name}: {'; '.join(step.figures) or 'as promised'}", flush=True)
        for promise in step.broken:
            print(f"          BROKEN {promise}", flush=True)
        self.broken += len(step.broken)
