"""The run itself: a local cluster, the processes of two API hosts, visitors, editors, a reshard, and faults."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import random
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import Program, answering, start
from snapurl.accounts import create_account
from snapurl.config import load_settings
from snapurl.errors import OutcomeUnknown, Unavailable
from snapurl.keys import create_key
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.drills.availability.faults import FULL_SHARD, MENDED_S, Faults, Kept, mount_disk
from tests.drills.availability.visitors import Tally, Visitors, target_of
from tests.drills.hosts.traffic import Traffic
from tests.faults.pair import new_link, shard_list
from tests.integration.clicks.test_clicks import counted
from tests.integration.http.service import environ_of
from tests.integration.store.conftest import Store
from tools.cluster.fleet import Fleet

APIS = 2
WORKERS = 2  # per API host
LINKS = 2_000
GONE = 20
WARM_S_MAX = 60.0
FULL_LAST_S = (2.0, 5.0)
SHORT_LAST_S = (0.5, 1.0)
WEIGHTS = (0.1, 0.3)
ROUND_S = 6.0
SETTLE_S_MAX = 120.0
COUNTED_S_MAX = 60.0


@dataclass(frozen=True)
class Plan:
    """`rate` is redirects per second. In a short run each fault occurs once, and only briefly."""

    seconds: float
    seed: int
    rate: float
    short: bool = False


class Availability:
    """One run on a running cluster."""

    def __init__(self, plan: Plan, cluster: LocalCluster, directory: Path, disk: Path | None) -> None:
        self._plan = plan
        self._cluster = cluster
        self._directory = directory
        self._disk = disk
        self._rng = random.Random(plan.seed)
        self._stop = asyncio.Event()
        self._turns = 0
        first = {name: dsn for name, dsn in cluster.dsns.items() if name != "db4"}
        self._settings = load_settings(
            shards=shard_list(first), redis_url=cluster.redis_url, home=directory, log_level="warning"
        )

    async def run(self) -> None:
        """Raises AssertionError with what was wrong."""
        settings = self._settings
        await migrate_all(settings)
        await ensure_cluster(settings)
        key = await create_key(settings, "test", ["admin"], "none")
        gone = await self._make_links()
        async with AsyncExitStack() as stack:
            ports = [free_port(set()) for _ in range(APIS)]
            apis = [await stack.enter_async_context(self._serving(n, port)) for n, port in enumerate(ports)]
            consumers = [
                await stack.enter_async_context(self._kept(f"clicks{n}", "-m", "snapurl", "clicks"))
                for n in range(2)
            ]
            migrate = ("-m", "tools.cli", "run", "--max-rows-per-second", "500", "--grace-s", "1")
            migrator = await stack.enter_async_context(self._kept("migrator", *migrate))
            for api, port in zip(apis, ports, strict=True):
                await answering(api, f"http://127.0.0.1:{port}/health/ready")
            code, said = await self._reshard(
                "add", "db4", "--dsn", self._cluster.dsns["db4"], "--weight", str(WEIGHTS[0]), "--yes"
            )
            assert code == 0, said
            visitors = Visitors(
                [("127.0.0.1", port) for port in ports], LINKS, gone, self._plan.rate, self._plan.seed
            )
            accounts = [(await create_account(settings, name)).account_id for name in ("one", "two")]
            traffic = Traffic(
                {f"api{n}": f"http://127.0.0.1:{port}" for n, port in enumerate(ports)},
                key,
                accounts,
                [f"k{number}" for number in range(10_000)],
                [],
                self._rng,
            )
            stack.push_async_callback(traffic.close)
            last_s = SHORT_LAST_S if self._plan.short else FULL_LAST_S
            faults = Faults(
                self._cluster, apis, consumers, migrator, self._rng, small_disk=self._disk, last_s=last_s
            )
            await self._warm(ports)
            async with traffic.flowing(), asyncio.TaskGroup() as group:
                group.create_task(visitors.come(self._stop))
                group.create_task(self._turn())
                told = await self._break(faults, visitors)
                self._stop.set()
            self._report(visitors.tally, told)
            print(await traffic.judge(), flush=True)
            store = await Store.open(settings)
            stack.push_async_callback(store.shards.close)
            await self._check_clicks(store, visitors.tally, faults.killed)
            await self._check_owners()

    async def _make_links(self) -> list[str]:
        """Creates LINKS links to follow, and others that it deletes. Returns the codes of the deleted ones."""
        store = await Store.open(self._settings)
        for begin in range(0, LINKS, 1_000):
            codes = [f"link{begin + n}" for n in range(1_000)]
            await store.links.create_many([new_link(code, target_of(code)) for code in codes])
        gone = [f"gone{n}" for n in range(GONE)]
        await store.links.create_many([new_link(code) for code in gone])
        for code in gone:
            await store.links.delete(code, if_match=None, owner=None, token=new_link(code).token)
        await store.shards.close()
        return gone

    # -- what runs ---------------------------------------------------------------------------------------------

    def _environ(self, **variables: str) -> dict[str, str]:
        return environ_of(self._settings, SNAPURL_WORKERS=str(WORKERS), **variables)

    @asynccontextmanager
    async def _serving(self, number: int, port: int) -> AsyncIterator[Program]:
        program = await start(
            f"api{number}",
            [sys.executable, "-m", "snapurl", "serve"],
            self._directory / f"api{number}.log",
            environ=self._environ(SNAPURL_PORT=str(port)),
        )
        try:
            yield program
        finally:
            await program.stop()

    @asynccontextmanager
    async def _kept(self, name: str, *words: str) -> AsyncIterator[Kept]:
        async def begin() -> Program:
            log = self._directory / f"{name}.log"
            return await start(name, [sys.executable, *words], log, environ=self._environ())

        kept = Kept(name, begin, await begin())
        try:
            yield kept
        finally:
            await kept.program.stop()

    async def _reshard(self, *words: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tools.cli", *words),
            env=self._environ(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode().strip()

    async def _turn(self) -> None:
        """Reshards without a break: slots move to the fifth shard and back."""
        for weight in itertools.cycle(reversed(WEIGHTS)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), ROUND_S)
            if self._stop.is_set():
                return
            code, _ = await self._reshard("weight", "db4", str(weight), "--yes")
            self._turns += code == 0  # otherwise a shard does not respond, and the operator retries later

    async def _warm(self, ports: list[int]) -> None:
        """Follows every link once through each API host, so that the caches are as warm as in normal operation."""
        for port in ports:
            visitors = Visitors([("127.0.0.1", port)], LINKS, [], 0.0, self._plan.seed)
            async with asyncio.timeout(WARM_S_MAX):
                for number in range(LINKS):
                    await visitors.ask(0, f"link{number}")
            visitors.close()
            self._warmed = Counter({f"link{n}": len(ports) for n in range(LINKS)})

    # -- the faults --------------------------------------------------------------------------------------------

    async def _break(self, faults: Faults, visitors: Visitors) -> Counter[str]:
        told: Counter[str] = Counter()
        ends = time.monotonic() + self._plan.seconds
        while time.monotonic() < ends:
            kinds = sorted(faults.kinds)
            self._rng.shuffle(kinds)  # every kind occurs once before any repeats
            for kind in kinds:
                if time.monotonic() >= ends:
                    break
                visitors.fault = kind
                await faults.kinds[kind]()
                told[kind] += 1
                await asyncio.sleep(MENDED_S if self._plan.short else self._rng.uniform(MENDED_S, 5.0))
                visitors.fault = "nothing"
                await asyncio.sleep(0.0 if self._plan.short else self._rng.uniform(1.0, 4.0))
        return told

    # -- the proof ---------------------------------------------------------------------------------------------

    def _report(self, tally: Tally, told: Counter[str]) -> None:
        print(f"{sum(told.values())} faults: {', '.join(f'{n} {kind}' for kind, n in sorted(told.items()))}")
        print(f"the weight of db4 was changed {self._turns} times")
        wrong = ", ".join(f"{count} {what} ({fault})" for (fault, what), count in tally.wrong.most_common())
        print(
            f"{tally.requests} redirects asked for, {tally.right} answered rightly: {tally.share:.4%}"
            f"; otherwise: {wrong or 'none'}",
            flush=True,
        )
        assert tally.misdirected == 0, f"{tally.misdirected} redirects led elsewhere"

    async def _check_clicks(self, store: Store, tally: Tally, killed: list[tuple[float, int]]) -> None:
        """Checks that no more clicks are lost than kills may lose, and that no more are counted than requested."""
        answered = tally.redirected + self._warmed
        lost_max = self._lost_max(tally, killed)
        found: Counter[str] = Counter()
        before = -1
        async with asyncio.timeout(COUNTED_S_MAX):
            while found.total() < answered.total() or found.total() != before:
                before = found.total()
                await asyncio.sleep(0.5)
                found = await self._counted(store, answered)
                if found.total() == before and found.total() >= answered.total() - lost_max:
                    break
        lost = sum((answered - found).values())
        more = sum((found - answered - tally.unanswered).values())
        print(
            f"{answered.total()} clicks answered, {found.total()} counted, {lost} lost by {len(killed)} killed "
            f"workers (at most {lost_max}), {more} too many",
            flush=True,
        )
        assert lost <= lost_max
        assert more == 0

    async def _counted(self, store: Store, codes: Counter[str]) -> Counter[str]:
        while True:
            try:
                return await counted(store, codes)
            except (Unavailable, OutcomeUnknown):
                await asyncio.sleep(0.2)

    def _lost_max(self, tally: Tally, killed: list[tuple[float, int]]) -> int:
        """Returns how many clicks may be lost: those that the host's workers answered since the last confirmed
        flush. That period is one flush interval plus the maximum duration of a flush.
        """
        window_s = (self._settings.click_flush_ms + self._settings.redis_timeout_ms) / 1000
        most = 0
        for at, api in killed:
            times = sorted(time_s for time_s, host in tally.redirects if host == api)
            most += bisect_right(times, at + 0.05) - bisect_left(times, at - window_s)
        return most

    async def _check_owners(self) -> None:
        async with asyncio.timeout(SETTLE_S_MAX):
            while not await self._settled():
                await asyncio.sleep(0.5)
            while (answer := await self._reshard("verify"))[0] != 0:
                await asyncio.sleep(0.5)
        print(f"verify: {answer[1]}", flush=True)

    async def _settled(self) -> bool:
        fleet = await Fleet.connect(self._settings)
        try:
            seen = await fleet.observe()
            owners = [owner.shard if owner else None for owner in seen.ownership.owners]
            return not seen.silent and owners == list(seen.placement)
        finally:
            await fleet.close()


async def run(plan: Plan, home: Path) -> None:
    place = home / "cluster"
    disk = place / FULL_SHARD
    small = mount_disk(disk)
    if not small:
        print("no right to mount a small disk: no disk will be full", flush=True)
    shards = ("db0", "db1", "db2", "db3", "db4")
    async with LocalCluster(place, shards, durable=False, loopback=True) as cluster:
        await Availability(plan, cluster, home, disk if small else None).run()
    print("nothing acknowledged was lost", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    plan = Plan(asked.seconds, asked.seed, asked.rate, asked.short)
    with tempfile.TemporaryDirectory(prefix="snapurl-availability-", ignore_cleanup_errors=True) as made:
        asyncio.run(run(plan, asked.home or Path(made)))


if __name__ == "__main__":
    main()
