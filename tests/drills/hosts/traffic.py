"""Traffic through both API hosts, with a record of histories, clicks, and the longest waits."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.drills.history.checker import Outcome, check_history
from tests.drills.history.clients import Answer, HttpClient
from tests.drills.history.recorder import Recorder

CLIENTS_PER_API = 3
PAUSE_S = 0.02
PATIENCE_S = 60.0  # of a client; long, so that an endless wait is noticed


@dataclass
class Outcomes:
    """What happened since the last `next_outcomes`, by API host."""

    longest_s: Counter[str] = field(default_factory=Counter)
    by_api: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, api: str, what: str, seconds: float) -> None:
        self.longest_s[api] = max(self.longest_s[api], seconds)  # type: ignore[assignment]
        self.by_api.setdefault(api, Counter())[what] += 1

    def __str__(self) -> str:
        return "; ".join(
            f"{api}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}, "
            f"at most {self.longest_s[api]:.2f} s"
            for api, counts in sorted(self.by_api.items())
        )


class Paced(HttpClient):
    """A client that pauses between requests, and records the outcome and duration of each."""

    def __init__(self, api: str, http: httpx.AsyncClient, traffic: Traffic) -> None:
        super().__init__(http)
        self._api = api
        self._traffic = traffic

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        with self._traffic.timed() as seconds:
            answer = await super().ask(method, path, **request)
            answered = not answer.is_down and answer.outcome is not Outcome.UNKNOWN
            self._traffic.outcomes.note(self._api, "answered" if answered else str(answer.outcome), seconds())
        await asyncio.sleep(PAUSE_S)
        return answer


class Traffic:
    """`urls` are the API hosts, `accounts` those to which links are given.

    Traffic flows inside `flowing()`; `judge` checks the record.
    """

    def __init__(
        self,
        urls: dict[str, str],
        key: str,
        accounts: Sequence[str],
        codes: Sequence[str],
        clicked: Sequence[str],
        rng: random.Random,
    ) -> None:
        self.outcomes = Outcomes()
        self.recorder = Recorder(list(codes), rng, key.split("_")[1], accounts)
        self.clicks: Counter[str] = Counter()
        self._urls = urls
        self._key = key
        self._clicked = clicked
        self._rng = rng
        self._stop = asyncio.Event()
        self._clients: list[httpx.AsyncClient] = []
        self._under_way: Counter[float] = Counter()  # when they began

    def next_outcomes(self) -> Outcomes:
        """Returns what happened since the last call."""
        outcomes, self.outcomes = self.outcomes, Outcomes()
        return outcomes

    @contextlib.contextmanager
    def timed(self) -> Iterator[Callable[[], float]]:
        """Times a request. Yields a function that returns the seconds since its start."""
        clock = asyncio.get_running_loop().time
        began = clock()
        self._under_way[began] += 1
        try:
            yield lambda: clock() - began
        finally:
            self._under_way[began] -= 1
            self._under_way = +self._under_way

    async def earlier_ones_end(self) -> None:
        """Waits until each request that is in flight now has ended."""
        now = asyncio.get_running_loop().time()
        while any(began <= now for began in self._under_way):
            await asyncio.sleep(PAUSE_S)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        for url in self._urls.values():
            self._clients.append(
                httpx.AsyncClient(base_url=url, headers={"X-Api-Key": self._key}, timeout=PATIENCE_S)
            )
        async with asyncio.TaskGroup() as group:
            for api, http in zip(self._urls, self._clients, strict=True):
                for _ in range(CLIENTS_PER_API):
                    client = Paced(api, http, self)
                    group.create_task(self.recorder.work(client, self._stop))
                if self._clicked:
                    group.create_task(self._visit(api))
            try:
                yield
            finally:
                self._stop.set()

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    async def _visit(self, api: str) -> None:
        """Follows links over one connection and counts the answers."""
        url = httpx.URL(self._urls[api])
        reader, writer = await asyncio.open_connection(url.host, url.port)
        while not self._stop.is_set():
            code = self._rng.choice(self._clicked)
            with self.timed() as seconds:
                await self._follow(api, code, reader, writer, seconds)
            await asyncio.sleep(PAUSE_S)
        writer.close()

    async def _follow(
        self,
        api: str,
        code: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seconds: Callable[[], float],
    ) -> None:
        """Follows one link and records the outcome."""
        writer.write(f"GET /{code} HTTP/1.1\r\nHost: s\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        redirected = head.startswith(b"HTTP/1.1 302 ")
        if redirected:
            self.clicks[code] += 1
        else:
            assert head.startswith(b"HTTP/1.1 503 "), head
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        self.outcomes.note(api, "redirected" if redirected else "not redirected", seconds())

    async def judge(self) -> str:
        """Reads the history of every link and returns a line about the histories. Raises AssertionError."""
        history = self.recorder.history
        before = len(history)
        await self.recorder.read_histories([HttpClient(self._clients[0])])
        for code, last in history[before:]:
            assert last.outcome not in (Outcome.REFUSED, Outcome.UNKNOWN), f"{code} cannot be read"
        wrong = check_history(history)
        listed = "\n".join(f"{code}: {why}" for code, why in itertools.islice(wrong.items(), 10))
        assert not wrong, f"{len(wrong)} histories are not linearizable:\n{listed}"
        outcomes = Counter(operation.outcome.value for _, operation in history)
        links = len({code for code, _ in history})
        return f"{len(history)} operations on {links} links are linearizable: {dict(outcomes)}"
