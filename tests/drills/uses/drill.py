"""A link with `max_clicks` that many follow at once, while its slot moves and its shard is killed.

Visitors share one budget of requests; one that is answered 503 is sent again. As long as faults come they pause
between requests, and in each phase get no more than its share of the uses, so that each fault meets uses that are
left; then they send the rest as fast as they can. Whatever happens, at most as many redirects are given as the link
has uses, and each of them is counted as a click. The uses of a reply that was lost are gone, so there may be fewer.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import Program, answering, start
from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.model import LinkFields
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.faults.pair import new_link, shard_list
from tests.integration.clicks.test_clicks import consumer, until_counted
from tests.integration.http.service import environ_of
from tests.integration.store.conftest import Store
from tests.integration.tools.conftest import settle
from tests.support.waits import until
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish

HOSTS = 2
WEIGHTS = (1.0, 1.03)  # of db1: with the second one some slots of db0 move there
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"


@dataclass(frozen=True)
class Plan:
    """`pause_s` is that of a visitor between two requests while faults come."""

    uses: int = 1_000
    requests: int = 10_000
    connections: int = 64
    workers: int = 2  # per host
    pause_s: float = 0.5


@dataclass
class Figures:
    """What visitors got, by status, and redirects by phase."""

    by_status: Counter[int] = field(default_factory=Counter)
    by_phase: dict[str, int] = field(default_factory=dict)
    used: int = 0

    @property
    def given(self) -> int:
        return self.by_status[302]

    def __str__(self) -> str:
        phases = ", ".join(f"{count} {phase}" for phase, count in self.by_phase.items())
        answers = ", ".join(f"{count} answered {status}" for status, count in sorted(self.by_status.items()))
        return (
            f"{self.by_status.total()} requests: {answers}; redirects: {phases}; "
            f"{self.used - self.given} uses lost with replies"
        )


class Drill:
    """One run on empty databases."""

    def __init__(self, plan: Plan, cluster: LocalCluster, settings: Settings, directory: Path) -> None:
        self._plan = plan
        self._cluster = cluster
        self._settings = settings
        self._directory = directory
        self._code = ""
        self._left = plan.requests
        self._share = 0  # redirects that visitors may have got by the end of the phase
        self._is_quiet = False  # no more faults come
        self._under_way = 0
        self.figures = Figures()

    async def run(self) -> Figures:
        """Raises AssertionError with what was wrong."""
        await migrate_all(self._settings)
        await ensure_cluster(self._settings)
        async with AsyncExitStack() as stack:
            store = await Store.open(self._settings)
            stack.push_async_callback(store.shards.close)
            self._code = await self._make_link(store)
            taken: set[int] = set()
            ports = []
            for _ in range(HOSTS):
                ports.append(free_port(taken))
                taken.add(ports[-1])
            for number, port in enumerate(ports):
                program = await stack.enter_async_context(self._serving(number, port))
                await answering(program, f"http://127.0.0.1:{port}/health/ready")
            await stack.enter_async_context(consumer(self._settings))
            async with asyncio.TaskGroup() as group:
                for number in range(self._plan.connections):
                    group.create_task(self._visit(ports[number % HOSTS]))
                await self._break(store)
            await self._judge(store)
        return self.figures

    async def _make_link(self, store: Store) -> str:
        """Makes the link in a slot that moves from db0 to db1, and returns its code."""
        topology = store.shards.topology
        there = place(topology.with_weight("db1", WEIGHTS[1]))
        here = place(topology)
        codes = (f"u{number}" for number in itertools.count())
        code = next(each for each in codes if (here[slot_of(each)], there[slot_of(each)]) == ("db0", "db1"))
        new = new_link(code)
        new.fields = LinkFields("https://example.org/", max_clicks=self._plan.uses)
        await store.links.create(new)
        return code

    @asynccontextmanager
    async def _serving(self, number: int, port: int) -> AsyncIterator[Program]:
        environ = environ_of(self._settings, SNAPURL_PORT=str(port), SNAPURL_WORKERS=str(self._plan.workers))
        log = self._directory / f"host{number}.log"
        words = [sys.executable, "-m", "snapurl", "serve"]
        program = await start(f"host{number}", words, log, environ=environ)
        try:
            yield program
        finally:
            await program.stop()

    # -- the faults --------------------------------------------------------------------------------------------

    async def _break(self, store: Store) -> None:
        """Moves the slot to db1, kills that shard, and moves the slot back."""
        phases: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("while the slot moved", lambda: self._move(WEIGHTS[1])),
            ("while its shard was killed and came back", lambda: self._kill(store)),
            ("while it moved back", lambda: self._move(WEIGHTS[0])),
        ]
        for number, (name, fault) in enumerate(phases, 1):
            before = self.figures.given
            self._share = self._plan.uses * number // (len(phases) + 1)
            await self._until_given(before)
            await fault()
            self.figures.by_phase[name] = self.figures.given - before
        before = self.figures.given
        self._is_quiet = True
        await until(lambda: self._left == 0 and self._under_way == 0)
        self.figures.by_phase["after that"] = self.figures.given - before

    async def _move(self, weight: float) -> None:
        fleet = await Fleet.connect(self._settings)
        await publish(fleet, fleet.topology.with_weight("db1", weight))
        await fleet.close()
        await settle(self._settings)

    async def _kill(self, store: Store) -> None:
        """Stops the server of db1 as a crash does, starts it again, and waits until it gives a use."""
        server = self._cluster.shard("db1")
        port = server.port
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        await until(lambda: server.pid is None)
        await server.start()
        assert server.port == port, "another program took the port of a server while it was down"
        before = self.figures.given
        self._share += 1  # should all have been given before
        await self._until_given(before)

    async def _until_given(self, before: int) -> None:
        """Waits until visitors have got more redirects than `before`."""
        await until(lambda: self.figures.given > before)

    # -- the visitors ------------------------------------------------------------------------------------------

    async def _visit(self, port: int) -> None:
        """Follows the link over one connection until no request is left."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /{self._code} HTTP/1.1\r\nHost: s\r\nUser-Agent: {BROWSER}\r\n\r\n".encode()
        while self._left > 0:
            if not self._is_quiet:
                await asyncio.sleep(self._plan.pause_s * random.random())
                if self.figures.given + self._under_way >= self._share:
                    continue
            self._left -= 1
            self._under_way += 1
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            length = head.lower().partition(b"content-length:")[2]
            if status != 302:
                await reader.readexactly(int(length.split()[0]))
            self.figures.by_status[status] += 1
            self._left += status == 503
            self._under_way -= 1
        writer.close()

    # -- the proof ---------------------------------------------------------------------------------------------

    async def _judge(self, store: Store) -> None:
        figures, plan = self.figures, self._plan
        assert figures.by_status.total() - figures.by_status[503] == plan.requests
        assert figures.by_status.keys() <= {302, 410, 503}, figures
        assert figures.given <= plan.uses, f"too many redirects: {figures}"
        await until_counted(store, Counter({self._code: figures.given}))
        fleet = await Fleet.connect(self._settings)
        try:
            rows = await fleet.fetch("db0", "SELECT used FROM link_uses WHERE code = $1", self._code)
            figures.used = rows[0]["used"]
            for name in ("db1", "db2", "db3"):
                assert not await fleet.fetch(name, "SELECT FROM link_uses")
        finally:
            await fleet.close()
        assert figures.used == plan.uses >= figures.given
        assert all(figures.by_phase.values()), f"a fault met no uses: {figures}"


async def run(
    plan: Plan, cluster: LocalCluster, dsns: dict[str, str], redis_url: str, directory: Path
) -> Figures:
    """Executes one run on four empty databases."""
    settings = load_settings(
        shards=shard_list(dsns), redis_url=redis_url, home=directory, log_level="warning"
    )
    return await Drill(plan, cluster, settings, directory).run()
