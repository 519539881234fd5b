"""Clicks from redirect to count, and edits from one worker to all, through the whole service."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from functools import partial

import httpx
import pytest

from snapurl.local.cluster import LocalCluster
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service, Worker
from tests.support.programs import Process, start
from tests.support.waits import HANG_S, until

CLICKS = 20_000
LINKS = 200
CONNECTIONS = 8
EDIT_SEEN_S_MAX = 0.2


async def consumer(service: Service) -> Process:
    """Starts the click consumer as a process."""
    log = service.workers[0].log.with_name("consumer.log").open("ab")
    return await start("snapurl.clicks", env=service.workers[0].environ, stdout=log, stderr=log)


@asynccontextmanager
async def consuming(service: Service) -> AsyncIterator[Process]:
    process = await consumer(service)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def clicks_of(service: Service, code: str) -> int:
    answer = await service.api.get(f"/api/v1/links/{code}/stats")
    assert answer.status_code == 200, answer.text
    stats = answer.json()
    assert stats["clicks"] == sum(day["clicks"] for day in stats["days"])
    clicks: int = stats["clicks"]
    return clicks


def today() -> date:
    return datetime.now(UTC).date()


async def test_a_redirect_is_counted_and_nothing_else_is(make_service: ServiceMaker) -> None:
    """A GET that redirects counts as a click of today; HEADs, 404s and 410s do not."""
    began = today()
    async with make_service(workers=2) as service, consuming(service):
        counted, deleted = await service.shorten(), await service.shorten()
        await service.api.delete(f"/api/v1/links/{deleted['code']}")
        for number in range(10):
            client = service.clients[number % 2]
            assert (await client.head(f"/{counted['code']}")).status_code == 302
            assert (await client.get(f"/{deleted['code']}")).status_code == 410
            assert (await client.get("/nobody-has-this")).status_code == 404
            origin = {"Referer": f"https://www{number % 3}.example.com/a?b", "User-Agent": "Firefox/140.0"}
            assert (await client.get(f"/{counted['code']}?x={number}", headers=origin)).status_code == 302

        async def all_counted() -> bool:
            return await clicks_of(service, counted["code"]) >= 10

        await until(all_counted)
        stats = (await service.api.get(f"/api/v1/links/{counted['code']}/stats")).json()
        assert stats["clicks"] == 10
        hosts = [("www0.example.com", 4), ("www1.example.com", 3), ("www2.example.com", 3)]
        assert stats["referrers"] == [{"host": host, "clicks": clicks} for host, clicks in hosts]
        assert stats["browsers"] == [{"family": "firefox", "clicks": 10}]
        assert {day["day"] for day in stats["days"]} <= {began.isoformat(), today().isoformat()}
        path = f"/api/v1/links/{counted['code']}"
        assert (await service.api.get(path)).json()["clicks"] == 10
        assert (await service.api.patch(path, json={"title": "x"})).json()["clicks"] == 10
        first = (await service.api.get("/api/v1/links", params={"sort": "clicks", "limit": 1})).json()
        assert [(link["code"], link["clicks"]) for link in first["links"]] == [(counted["code"], 10)]


class Visitor:
    """One keep-alive connection that follows links, and reconnects when it is cut."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def follow(self, code: str) -> None:
        """Repeats the request until it is answered: an unanswered one was not a redirect."""
        while True:
            try:
                if self._writer is None or self._reader is None:
                    self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._worker.port)
                self._writer.write(f"GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), HANG_S)
            except (ConnectionError, asyncio.IncompleteReadError):
                self.close()
                await asyncio.sleep(0.05)
                continue
            assert head.startswith(b"HTTP/1.1 302 "), head
            if b"connection: close" in head:
                self.close()
            return

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def visit(worker: Worker, codes: list[str]) -> None:
    visitor = Visitor(worker)
    for code in codes:
        await visitor.follow(code)
    visitor.close()


async def test_20_000_clicks_are_counted_exactly_whatever_is_restarted(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """Clicks are counted exactly although a worker gets SIGTERM, the consumer is killed, and Redis restarts."""
    async with make_service(workers=2) as service:
        made = await service.api.post(
            "/api/v1/links/bulk", json={"links": [{"url": "https://example.org/"}] * LINKS}
        )
        codes = [result["link"]["code"] for result in made.json()["results"]]
        counting = await consumer(service)
        share = codes * (CLICKS // LINKS // CONNECTIONS)
        rest = codes * (CLICKS // LINKS % CONNECTIONS)
        visits = [
            asyncio.create_task(visit(service.workers[number % 2], share + (rest if number == 0 else [])))
            for number in range(CONNECTIONS)
        ]

        async def some_counted() -> bool:
            return await clicks_of(service, codes[0]) > 0

        await until(some_counted)
        counting.send_signal(signal.SIGKILL)
        await counting.wait()
        assert await service.workers[1].stop(signal.SIGTERM) == 0
        await service.workers[1].start()
        await cluster.redis.stop()
        await asyncio.sleep(0.3)
        await cluster.redis.start()
        async with consuming(service):
            await asyncio.gather(*visits)

            async def total() -> int:
                return sum([await clicks_of(service, code) for code in codes])

            async def all_counted() -> bool:
                return await total() >= CLICKS

            await until(all_counted)
            await asyncio.sleep(0.5)
            counts = [await clicks_of(service, code) for code in codes]
        assert counts == [CLICKS // LINKS] * LINKS


@pytest.mark.parametrize("fast_path", ["true", "false"])
async def test_who_did_not_click_is_told_apart(make_service: ServiceMaker, fast_path: str) -> None:
    """A link preview and a library are no browsers, one that loads a page in advance is not counted; all are
    redirected. Long headers are counted as short ones."""
    chrome = (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"
    )
    in_advance = [
        *({"User-Agent": chrome, name: "prefetch"} for name in ("Purpose", "X-Moz")),
        {"User-Agent": chrome, "Sec-Purpose": "prefetch;prerender"},
    ]
    headers = [
        {"User-Agent": "WhatsApp/2.23.20.0"},
        {"User-Agent": "axios/1.7.2"},
        {"User-Agent": chrome + " x" * 4_000, "Referer": "https://news.example/" + "x" * 6_000},
    ]
    async with make_service(SNAPURL_FAST_PATH=fast_path) as service, consuming(service):
        link = await service.shorten()
        for each in in_advance:
            answer = await service.api.get(f"/{link['code']}", headers=each)
            assert (answer.status_code, answer.headers["cache-control"]) == (302, "no-store")
        for each in headers:
            assert (await service.api.get(f"/{link['code']}", headers=each)).status_code == 302

        async def all_counted() -> bool:
            return await clicks_of(service, link["code"]) >= len(headers)

        await until(all_counted)
        stats = (await service.api.get(f"/api/v1/links/{link['code']}/stats")).json()
    browsers = {item["family"]: item["clicks"] for item in stats["browsers"]}
    assert stats["clicks"] == len(headers)
    assert browsers == {"": 2, "chrome": 1}
    assert {item["host"]: item["clicks"] for item in stats["referrers"]} == {"": 2, "news.example": 1}


async def leads_to(client: httpx.AsyncClient, code: str, url: str) -> bool:
    return bool((await client.get(f"/{code}")).headers["location"] == url)


async def test_an_edit_is_seen_by_every_worker_at_once(service: Service) -> None:
    """Workers that have a link cached follow an edit within 200 ms (the median of 21)."""
    link = await service.shorten()
    waits = []
    for number in range(21):
        for client in service.clients[:2]:
            assert (await client.get(f"/{link['code']}")).status_code == 302
        editor, other = service.clients[number % 2], service.clients[1 - number % 2]
        url = f"https://example.org/{number}"
        await editor.patch(f"/api/v1/links/{link['code']}", json={"url": url})
        began = time.monotonic()
        assert (await editor.get(f"/{link['code']}")).headers["location"] == url

        await until(partial(leads_to, other, link["code"], url))
        waits.append(time.monotonic() - began)
    assert statistics.median(waits) < EDIT_SEEN_S_MAX, waits
