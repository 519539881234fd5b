"""Visitors that arrive at a steady rate, independent of earlier answers, and know the correct answer.

Each answer is checked when it arrives; no request is retried. Correct answers are a redirect to the link's target,
404 for a missing link and 410 for a deleted one, within PATIENCE_S. Everything else, including a 503 and no answer,
is wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.zipf import zipf_numbers

PATIENCE_S = 5.0
IN_FLIGHT_MAX = 2_000
DRAWS = 100_000
MISSING_SHARE = 0.01
GONE_SHARE = 0.01
IDLE_MAX = 32  # connections kept per API host

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def target_of(code: str) -> str:
    """Returns the target URL of a link."""
    return f"https://example.org/to/{code}"


@dataclass
class Tally:
    """Counts of the answers. `unanswered` and `redirected` are by code, `redirects` are (time, API host)."""

    requests: int = 0
    right: int = 0
    misdirected: int = 0
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    redirected: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    redirects: list[tuple[float, int]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / max(1, self.requests)


class Visitors:
    """`apis` are the host and port of each API host; `fault` names the current fault, for the report."""

    def __init__(
        self, apis: Sequence[tuple[str, int]], links: int, gone: Sequence[str], rate: float, seed: int
    ) -> None:
        self.tally = Tally()
        self.fault = "nothing"
        self._apis = apis
        self._popular = zipf_numbers(links, DRAWS, seed)
        self._gone = gone
        self._rate = rate
        self._rng = random.Random(seed)
        self._idle: list[list[Streams]] = [[] for _ in apis]
        self._running: set[asyncio.Task[None]] = set()

    async def come(self, stop: asyncio.Event) -> None:
        """Sends requests until `stop`, then waits until the last one has been answered or has given up."""
        loop = asyncio.get_running_loop()
        at = loop.time()
        while not stop.is_set():
            at += self._rng.expovariate(self._rate)
            await asyncio.sleep(max(0.0, at - loop.time()))
            if len(self._running) < IN_FLIGHT_MAX:
                task = asyncio.create_task(self._one())
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                self._note("no room for one more", "", right=False)
        await asyncio.gather(*self._running)
        self.close()

    def close(self) -> None:
        for _, writer in (streams for kept in self._idle for streams in kept):
            writer.close()

    def _choice(self) -> tuple[str, str]:
        """Returns a code and its correct answer."""
        dice = self._rng.random()
        if dice < MISSING_SHARE:
            return f"nothing{self._rng.randrange(1_000_000)}", "404"
        if dice < MISSING_SHARE + GONE_SHARE:
            return self._rng.choice(self._gone), "410"
        code = f"link{self._popular[self._rng.randrange(DRAWS)]}"
        return code, target_of(code)

    async def _one(self) -> None:
        api = self._rng.randrange(len(self._apis))
        code, right = self._choice()
        fault = self.fault
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await self.ask(api, code)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            self.tally.unanswered[code] += 1
            late = isinstance(error, TimeoutError)
            self._note(fault, "no answer in time" if late else "connection lost", right=False)
            return
        if answer.startswith("https:"):
            self.tally.redirected[code] += 1
            self.tally.redirects.append((asyncio.get_running_loop().time(), api))
            self.tally.misdirected += answer != right
        self._note(fault, answer, right=answer == right)

    def _note(self, fault: str, what: str, *, right: bool) -> None:
        self.tally.requests += 1
        if right:
            self.tally.right += 1
        else:
            self.tally.wrong[fault, what] += 1

    async def ask(self, api: int, code: str) -> str:
        """Returns the target of the answer's redirect, or the status of the answer."""
        reader, writer = await self._streams(api)
        try:
            writer.write(f"GET /{code} HTTP/1.1\r\nHost: s\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            await reader.readexactly(int(headers.get("content-length", 0)))
        except BaseException:
            writer.transport.abort()
            raise
        if headers.get("connection") == "close" or len(self._idle[api]) >= IDLE_MAX:
            writer.close()
        else:
            self._idle[api].append((reader, writer))
        return headers.get("location") or head[9:12]

    async def _streams(self, api: int) -> Streams:
        """Returns a connection that is not known to be closed: an idle kept one, or a new one."""
        while self._idle[api]:
            reader, writer = self._idle[api].pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self._apis[api])
