"""Thirty requests per second through the proxy: one link created for every two that are followed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx

PER_SECOND = 30
PATIENCE_S = 30.0
LINKS = "/api/v1/links"


@dataclass(slots=True)
class Request:
    """One request: what it asked for, when (seconds of the event loop), and why it failed, "" if it did not."""

    kind: str
    code: str
    began: float
    ended: float = float("inf")
    failure: str = ""


@dataclass
class Window:
    """The requests that began within a part of the drill, complete once the part has ended."""

    requests: list[Request] = field(default_factory=list)

    @property
    def failed(self) -> list[Request]:
        return [each for each in self.requests if each.failure]

    @property
    def longest_s(self) -> float:
        return max((each.ended - each.began for each in self.requests), default=0.0)

    def __str__(self) -> str:
        kinds = Counter(f"{each.kind} {each.failure}" for each in self.failed)
        listed = "".join(f", {count} x {kind}" for kind, count in kinds.most_common(4))
        return f"{len(self.failed)} of {len(self.requests):,} failed{listed}; longest {self.longest_s:.2f} s"


class Traffic:
    """Requests at a steady rate, whatever becomes of those before (an open loop). `codes` are the links made."""

    def __init__(self, url: str, key: str, rng: random.Random) -> None:
        self.codes: list[str] = []
        self.clicks: Counter[str] = Counter()
        self.api = httpx.AsyncClient(
            base_url=url,
            headers={"X-Api-Key": key},
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_connections=None),
        )
        self._requests: list[Request] = []
        self._rng = rng

    async def create(self, count: int) -> None:
        """Creates links before the traffic begins."""
        for _ in range(count):
            await self._one("create")
        if failed := Window(self._requests).failed:
            raise RuntimeError(f"the first links cannot be created: {failed[0].failure}")

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Traffic flows inside."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._flow(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    @contextlib.asynccontextmanager
    async def window(self) -> AsyncIterator[Window]:
        """Yields what collects the requests that begin inside, and waits for their ends."""
        found, first = Window(), len(self._requests)
        yield found
        found.requests = self._requests[first:]
        while any(each.ended == float("inf") for each in found.requests):
            await asyncio.sleep(0.02)

    async def leads(self, code: str) -> bool:
        """Follows a link outside the record of requests. Returns whether it leads somewhere."""
        try:
            answer = await self.api.get(f"/{code}")
        except httpx.HTTPError:
            return False
        led = answer.status_code == 302
        self.clicks[code] += led
        return led

    async def _flow(self, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if stop.is_set():
                    return
                await asyncio.sleep(max(0.0, began + number / PER_SECOND - clock()))
                group.create_task(self._one("redirect" if number % 3 else "create"))

    async def _one(self, kind: str) -> None:
        clock = asyncio.get_running_loop().time
        request = Request(kind, "" if kind == "create" else self._rng.choice(self.codes), clock())
        self._requests.append(request)
        ask: Callable[[Request], object] = self._create if kind == "create" else self._follow
        try:
            await ask(request)  # type: ignore[misc]
        except httpx.HTTPError as error:
            request.failure = type(error).__name__
        request.ended = clock()

    async def _create(self, request: Request) -> None:
        answer = await self.api.post(LINKS, json={"url": "https://example.org/"})
        if answer.status_code == 201:
            request.code = answer.json()["code"]
            self.codes.append(request.code)
        else:
            request.failure = _told(answer)

    async def _follow(self, request: Request) -> None:
        answer = await self.api.get(f"/{request.code}")
        if answer.status_code == 302:
            self.clicks[request.code] += 1
        else:
            request.failure = _told(answer)


def _told(answer: httpx.Response) -> str:
    try:
        return f"{answer.status_code} {answer.json().get('detail', '')}"
    except ValueError:
        return str(answer.status_code)
