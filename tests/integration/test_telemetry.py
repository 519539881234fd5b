"""Metrics of running programs, compared with the dashboard, the alerts and the traffic."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from snapurl.config import Settings
from snapurl.keys import create_key
from snapurl.local.free_ports import free_port
from tests.integration.store.conftest import Store
from tests.integration.test_secrets import program
from tests.integration.tools.conftest import add_fifth, fifth, five, new_link, ready, store
from tests.support.waits import HANG_S, until
from tests.unit.test_telemetry import BY, GIVEN, SELECTOR, expressions

__all__ = ["fifth", "five", "new_link", "ready", "store"]

MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@dataclass
class Scraped:
    """Metric name -> its label sets, over all scrapes."""

    series: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def take(self, job: str, text: str) -> None:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {**sample.labels, "job": job}
                self.series.setdefault(sample.name, []).append(labels)
                self.values[sample.name, tuple(sorted(labels.items()))] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Returns the sum of the series with these labels. Asserts that there is one."""
        found = [
            value
            for (each, its), value in self.values.items()
            if each == name and labels.items() <= dict(its).items()
        ]
        assert found, f"{name} {labels} was not scraped"
        return sum(found)


@dataclass
class Watched:
    """A service of two workers, a click consumer and a migrator, with the address to scrape each."""

    api: httpx.AsyncClient
    urls: Mapping[str, str]
    logs: Mapping[str, Path]

    async def scrape(self, *names: str) -> Scraped:
        found = Scraped()
        for name in names or self.urls:
            answer = await self.api.get(self.urls[name])
            assert answer.status_code == 200
            found.take(name, answer.text)
        return found

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the log lines of one program. Each is JSON."""
        for line in self.logs[name].read_text().splitlines():
            yield json.loads(line)

    def pids(self) -> list[int]:
        """Returns the process ids of the workers, which are the children of the service."""
        return children_of(self.service_pid)

    service_pid: int = 0


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def watched(settings: Settings, directory: Path, **variables: str) -> AsyncIterator[Watched]:
    key = await create_key(settings, "admin", ("create", "read", "change", "admin"), "none")
    ports = {name: free_port(set()) for name in ("api", "clicks", "migrator")}
    service_port = free_port(set())
    logs = {name: directory / f"{name}.log" for name in ports}
    url = f"http://127.0.0.1:{service_port}"
    urls = {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()}
    at = {name: ("--metrics-port", str(port)) for name, port in ports.items()}
    http = {
        "SNAPURL_PORT": str(service_port),
        "SNAPURL_METRICS_PORT": str(ports["api"]),
        "SNAPURL_WORKERS": "2",
    }
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        service = await enter(
            program(settings, logs["api"], "tests.support.serve", "serve", **http, **variables)
        )
        await enter(program(settings, logs["clicks"], "snapurl", "clicks", *at["clicks"]))
        moving = ("tools.cli", "run", "--service-url", url, *at["migrator"])
        await enter(program(settings, logs["migrator"], *moving))
        api = await enter(httpx.AsyncClient(base_url=url, headers={"X-Api-Key": key}, timeout=HANG_S))
        found = Watched(api, urls, logs, service.pid)

        async def all_answer() -> bool:
            try:
                answers = [await api.get(url) for url in (*urls.values(), "/health/ready")]
            except httpx.HTTPError:
                return False
            return all(answer.status_code == 200 for answer in answers)

        await until(all_answer)
        yield found


async def traffic(api: httpx.AsyncClient) -> None:
    """Sends a few requests of every kind."""
    links = "/api/v1/links"
    code = (await api.post(links, json={"url": "https://example.org/"})).json()["code"]
    await api.post(f"{links}/bulk", json={"links": [{"url": f"https://example.org/{n}"} for n in range(50)]})
    for _ in range(20):
        assert (await api.get(f"/{code}")).status_code == 302
    await api.patch(f"{links}/{code}", json={"title": "t"})
    for path in (f"{links}/{code}", links, "/api/v1/ring", f"{links}/{code}/stats", "/none", "/a/b/c"):
        await api.get(path)
    await api.post(links, json={"url": "no"})
    await api.delete(f"{links}/{code}")
    assert (await api.get(f"/{code}")).status_code == 410


async def test_what_is_shown_and_warned_of_comes_out(
    ready: Settings, five: Settings, fifth: str, store: Store, tmp_path: Path
) -> None:
    """A service, a consumer and a migrator export every metric of the dashboard and the alerts, with the selected
    labels and values."""
    async with watched(five, tmp_path) as running:
        await traffic(running.api)
        await (await add_fifth(ready, five, fifth, 0.2)).close()

        async def moved() -> bool:
            found = await running.scrape("migrator", "clicks")
            paused = found.value("snapurl_reshard_pause_seconds_count")
            left = found.value("snapurl_reshard_slots_left")
            return bool(paused and not left and found.value("snapurl_clicks_applied_total"))

        await until(moved)
        shards = {f"db{number}" for number in range(5)}
        states = ("snapurl_redis_up", "snapurl_shard_up", "snapurl_shard_attested")

        async def all_well() -> bool:
            """Polls, since a busy machine may miss one check of Redis or a shard."""
            found = await running.scrape("api", "clicks")
            seen = {
                each["shard"] for each in found.series.get("snapurl_shard_up", ()) if each["job"] == "api"
            }
            return seen == shards and all(
                value == 1 for (name, labels), value in found.values.items() if name in states and labels
            )

        await until(all_well)
        found = await running.scrape()
        for expression in set(expressions()):
            held_to(found, expression)
        assert found.value("snapurl_workers") == 2
        for process in ("worker", "clicks"):
            assert found.value("snapurl_redis_up", process=process) in (0, 1)
        for process in ("worker", "clicks", "migrator"):
            assert found.value("snapurl_topology_version", process=process) == 2
        assert found.value("snapurl_click_consumer_working") == found.value("snapurl_reshard_working") == 1
        for shard, job in itertools.product(shards, ("api", "clicks")):
            assert found.value("snapurl_shard_up", shard=shard, job=job) in (0, 1)
            assert found.value("snapurl_shard_attested", shard=shard, job=job) in (0, 1)
            assert found.value("snapurl_pool_connections", shard=shard, job=job, state="most") >= 1
        for job in running.urls:
            assert found.value("snapurl_build_info", job=job) == 1
            assert found.value("snapurl_memory_bytes", job=job) > 1_000_000
            assert found.value("snapurl_loop_lag_seconds_count", job=job) > 0
        assert found.value("snapurl_redirect_seconds_count", path="ahead") >= 1


async def test_counts_are_one_for_one(ready: Settings, store: Store, tmp_path: Path) -> None:
    """Two workers together count exactly the client's requests and clicks."""
    async with watched(ready, tmp_path) as running:
        made = await running.api.post("/api/v1/links", json={"url": "https://example.org/"})
        path, before = f"/{made.json()['code']}", await running.scrape("api")
        for _ in range(30):  # each over a separate connection, so that both workers get some
            async with httpx.AsyncClient(base_url=running.api.base_url) as visitor:
                assert (await visitor.get(path)).status_code == 302
        for _ in range(7):
            assert (await running.api.get(f"/api/v1/links{path}")).status_code == 200
        for _ in range(3):
            assert (await running.api.get("/none-such")).status_code == 404

        after = before

        def grown(name: str, **labels: str) -> float:
            return after.value(name, **labels) - before.value(name, **labels)

        async def counted() -> bool:
            """Polls, since the worker that is not scraped flushes its counts a little later."""
            nonlocal after
            after = await running.scrape("api")
            applied = (await running.scrape("clicks")).value("snapurl_clicks_applied_total")
            shipped, redirects = (
                grown("snapurl_clicks_shipped_total"),
                grown("snapurl_redirect_seconds_count"),
            )
            return applied >= 30 and shipped >= 30 and redirects >= 33

        await until(counted)

        one = {"route": "/api/v1/links/{code}", "method": "GET", "status": "200"}
        assert after.value("snapurl_http_requests_total", **one) == 7
        assert grown("snapurl_redirects_total", outcome="redirected") == 30
        assert grown("snapurl_redirects_total", outcome="missing") == 3
        assert grown("snapurl_redirect_seconds_count") == 33
        assert grown("snapurl_cache_answers_total") == 33
        assert grown("snapurl_clicks_shipped_total") == 30
        assert (await running.scrape("clicks")).value("snapurl_clicks_applied_total") == 30


def held_to(found: Scraped, expression: str) -> None:
    """Asserts that each selector matches a series, or has labels that exist."""
    named = SELECTOR.findall(expression)
    assert named, expression
    labels = set(GIVEN)
    for name, selected in named:
        assert name in found.series, f"{name} was not scraped, and is in: {expression}"
        series = found.series[name]
        labels |= {label for each in series for label in each}
        for label, how, value in MATCHER.findall(selected):
            if how in ("=", "=~"):
                pattern = re.compile(value if how == "=~" else re.escape(value))
                fits = [each for each in series if pattern.fullmatch(each.get(label, ""))]
                assert fits, f"{name} never has {label} {value}, and is in: {expression}"
            else:
                assert all(label in each for each in series), f"{name} has no {label}: {expression}"
    for summed in BY.findall(expression):
        assert {label.strip() for label in summed.split(",")} <= labels, expression


@pytest.mark.long
async def test_a_worker_that_is_killed_20_times_takes_no_count_along(
    ready: Settings, store: Store, tmp_path: Path
) -> None:
    """Killed workers leave no metric files behind, and no scraped counter ever decreases."""
    own = tmp_path / "tmp"
    own.mkdir()
    async with watched(ready, tmp_path, TMPDIR=str(own)) as running:
        code = (await running.api.post("/api/v1/links", json={"url": "https://example.org/"})).json()["code"]
        (directory,) = own.glob("snapurl-metrics-*")
        before: dict[Any, float] = {}
        for _ in range(20):
            workers = running.pids()
            os.kill(workers[0], signal.SIGKILL)

            async def replaced(gone: int = workers[0]) -> bool:
                try:
                    await running.api.get(f"/{code}")
                    now = counters(await running.scrape("api"))
                except httpx.HTTPError:
                    return False
                back = {
                    name: (value, now.get(name)) for name, value in before.items() if now.get(name, 0) < value
                }
                assert not back
                before.update(now)
                return gone not in running.pids() and len(running.pids()) == 2

            await until(replaced)

        async def both() -> bool:
            return (await running.scrape("api")).value("snapurl_workers") == 2

        await until(both)
        found = await running.scrape("api")
        assert found.value("snapurl_children_ended_total") == 20
        assert found.value("snapurl_redirects_total", outcome="redirected") >= 20
        kinds = {file.name.rpartition("_")[0] for file in directory.glob("*.db")}
        assert len(list(directory.glob("*.db"))) <= 3 * len(kinds)
        ended = [line for line in running.lines("api") if "was killed by SIGKILL" in line["message"]]
        assert len(ended) == 20


def counters(found: Scraped) -> dict[Any, float]:
    return {
        name: value
        for name, value in found.values.items()
        if name[0].endswith(("_total", "_bucket", "_count"))
    }
