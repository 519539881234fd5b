"""All shards of the cluster: one pool each, the newest topology, and notifications of changes to both.

A process is given DSNs, reads the highest topology version that any shard has, and connects to every shard of that
topology. Shards without a DSN are reached at the topology's address with the credentials of the first DSN. A shard
that is down costs only the slots it holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import asyncpg

from ring.arcs import Arc
from ring.errors import RingError
from ring.ownership import SlotState
from ring.placement import place
from ring.slots import slot_of
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.errors import ConfigError, Unavailable
from snapurl.model import ClusterChange, RingView, ShardHealth, ShardShare, ShardState, SlotPlace
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.dsn import dsn_of, missing_file
from snapurl.store.cluster.failover import connect_primary
from snapurl.store.cluster.pool import (
    CLUSTER,
    Pool,
    Row,
    ShardFailed,
    ShardUnknown,
    WrongShard,
    check_identity,
    describe,
    statement_errors_of,
)
from snapurl.store.cluster.rejoin import attest, find_restarted
from snapurl.store.cluster.slot_map import SlotMap
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task, endless_task
from snapurl.telemetry.metrics import (
    SHARD_ATTESTED,
    SHARD_UP,
    SLOTS_IN_HAND_OFF,
    SLOTS_UNKNOWN,
    TOPOLOGY_VERSION,
)

log = logging.getLogger("snapurl.shards")
T = TypeVar("T")

# How often the slot map is read anew without a notification: losing one does no harm.
POLL_S = 5.0
# How often a connection that waits for notifications is asked whether it still works. Until then the polls do.
PING_S = 60.0
CHANNELS = ("snapurl_slots", "snapurl_topology")  # of the notifications, which the tables' triggers send
NOTIFY_DEBOUNCE_S = 0.1  # a hand-off sends several in a row; `refresh_soon` does not wait for it
WATCH_RETRY_S = 1.0
# To attest a restarted shard, the slots of every shard are read. After a failed attempt the next one waits this
# long,
# or ATTEST_PACE times as long as the attempt took.
ATTEST_RETRY_S = 0.25
ATTEST_PACE = 8
# Counting 256 arcs takes more than a millisecond, and slots change hands many times per second.
ARCS_AGE_S = 0.5
# How the outcome of a command begins in the audit log, as long as it has not ended.
UNFINISHED = ("begun", "published")
# The reason under which a write that timed out on a slot in hand-off is counted.
HAND_OFF = "hand-off"


async def read_topology(settings: Settings) -> Topology:
    """Returns the newest topology that any configured shard has.

    Raises ConfigError if a DSN leads to the wrong database, no shard answers, or the cluster is not initialised.
    """
    dsns = settings.shard_dsns
    timeout_s = settings.statement_timeout_ms / 1000
    answers = await asyncio.gather(
        *(_read_identity(item.name, item.dsn, timeout_s) for item in dsns), return_exceptions=True
    )
    found: dict[str, tuple[Any, Topology | None]] = {}
    silent: list[ShardFailed] = []
    for item, answer in zip(dsns, answers, strict=True):
        if isinstance(answer, ShardFailed):
            silent.append(answer)
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found[item.name] = answer
    if not found:
        raise no_shard_answers(silent)
    for failed in silent:
        log.warning("%s; starting without it", failed)
    return _agree(found)


def no_shard_answers(silent: Sequence[ShardFailed]) -> ConfigError:
    """Returns the error for a start without any shard, with the reason of the first one."""
    return ConfigError(f"no shard answers ({silent[0]}): check SNAPURL_SHARDS and that PostgreSQL runs")


def _agree(found: dict[str, tuple[Any, Topology | None]]) -> Topology:
    topologies = [topology for _, topology in found.values() if topology is not None]
    if not topologies or any(row is not None and row["state"] != "ready" for row, _ in found.values()):
        raise ConfigError("the cluster is not initialised: run `snapurl migrate`")
    newest = max(topologies, key=lambda topology: topology.version)
    named = {shard.name for shard in newest.shards}
    for name, (row, _) in found.items():
        if row is None and name not in named:
            continue  # not a shard yet: its DSN may be configured before it is added
        check_identity(name, newest.cluster_id, row)
    return newest


async def _read_identity(name: str, dsn: str, timeout_s: float) -> tuple[Any, Topology | None]:
    connection = await connect_once(name, dsn, timeout_s)
    try:
        with statement_errors_of(name):
            row = await connection.fetchrow(CLUSTER["identity"])
            document = await connection.fetchval(CLUSTER["topology"])
        return row, Topology.from_json(document) if document else None
    except asyncpg.UndefinedTableError:
        return None, None
    except RingError as error:
        raise ConfigError(f"shard {name} holds a topology that this program cannot read: {error}") from None
    finally:
        await close_quietly(connection, timeout_s)


async def connect_once(name: str, dsn: str, timeout_s: float, *, application: str = "snapurl") -> Any:
    """Opens a connection outside the pools. Raises ShardFailed, or ConfigError if the DSN itself is refused."""
    try:
        if word := missing_file(dsn):
            raise ConfigError(f"the DSN of shard {name}: the file that {word} names does not exist")
        settings = {"application_name": application, "jit": "off"}  # as in a pool
        return await connect_primary(dsn, timeout_s, command_timeout=60.0, server_settings=settings)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise ConfigError(f"shard {name} refuses the user or password of its DSN") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"shard {name} does not let the user of its DSN connect: GRANT it CONNECT"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise ConfigError(f"shard {name} has no database of the name in its DSN") from error
    except ssl.SSLError as error:  # a refused certificate is a ValueError too
        raise ShardFailed(name, describe(error), sent=False) from error
    except (ValueError, OverflowError, asyncpg.ClientConfigurationError) as error:
        if "root certificate" in str(error):
            raise ConfigError(f"the DSN of shard {name} names no sslrootcert to verify it by") from error
        raise ConfigError(f"the DSN of shard {name} cannot be read") from error
    except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ShardFailed(name, describe(error), sent=False) from error


async def close_quietly(connection: Any, timeout_s: float) -> None:
    """Closes a connection, and terminates it if the server does not answer in time. Never raises."""
    try:
        await connection.close(timeout=timeout_s)
    except (*LOST, asyncpg.PostgresError):
        connection.terminate()


class Shards:
    """The pools, the topology and the slot map of one process."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self.topology = topology
        self.map = SlotMap(topology)
        self._settings = settings
        self._pools: dict[str, Pool] = {}
        self._seen: dict[str, int] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._refresh_task: asyncio.Task[None] | None = None
        self._started: dict[str, datetime] = {}
        self._restarts_seen = 0  # how often any shard's server was found restarted
        self._unattested: dict[str, str] = {}  # restarted shard -> why it serves nothing yet
        self._attesting = asyncio.Lock()
        self._attest_after = 0.0
        self._ring_view: tuple[int, int, RingView] | None = None
        self._arcs: dict[int, tuple[float, tuple[int, int], tuple[Arc, ...]]] = {}

    @classmethod
    async def connect(cls, settings: Settings) -> Shards:
        """Reads the topology, opens a pool per shard and loads ownership. Raises ConfigError."""
        shards = cls(settings, await read_topology(settings))
        shards._open_pools()
        await shards.refresh()
        for name in shards._pools:
            shards._watch(name)
        return shards

    async def close(self) -> None:
        await cancel_and_wait(self._refresh_task, *self._watchers.values())
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def pool(self, name: str) -> Pool:
        """Returns the pool of shard `name`. Raises ShardUnknown if no topology read so far names it."""
        pool = self._pools.get(name)
        if pool is None:
            self.refresh_soon()
            raise ShardUnknown(name)
        return pool

    def serves(self, name: str) -> bool:
        """Whether shard `name` is believed to serve: its last call was answered, and it does not wait to be
        attested."""
        pool = self._pools.get(name)
        return pool is not None and pool.last_error is None and name not in self._unattested

    def dsn(self, name: str) -> str:
        """Returns the DSN of a shard of the topology."""
        return dsn_of(self._settings, self.topology, name)

    def _open_pools(self) -> None:
        settings = self._settings
        for shard in self.topology.shards:
            if shard.name not in self._pools:
                self._pools[shard.name] = Pool(
                    shard.name,
                    self.dsn(shard.name),
                    self.topology.cluster_id,
                    size=settings.pool_connections,
                    wait_ms=settings.pool_wait_ms,
                    statement_timeout_ms=settings.statement_timeout_ms,
                )

    def measure(self, process: str) -> None:
        """Sets the gauges, labelled by `process`. Shards that have left the topology get NaN."""
        names = {shard.name for shard in self.topology.shards}
        for name, pool in self._pools.items():
            if name in names:
                pool.measure()
                SHARD_ATTESTED.labels(name).set(name not in self._unattested)
            else:
                SHARD_UP.labels(name).set(math.nan)
                SHARD_ATTESTED.labels(name).set(math.nan)
        TOPOLOGY_VERSION.labels(process).set(self.topology.version)
        SLOTS_IN_HAND_OFF.set(self.map.in_hand_off)
        SLOTS_UNKNOWN.set(self.map.unknown)

    @property
    def names(self) -> list[str]:
        """The shards of the topology."""
        return [shard.name for shard in self.topology.shards]

    # -- notifications and polling ---------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Reads what has changed on every shard that answers, and attests restarted shards."""
        pools = [self._pools[shard.name] for shard in self.topology.shards]
        await asyncio.gather(*(self._refresh_shard(pool) for pool in pools))
        await self._attest()

    def refresh_soon(self) -> None:
        """Starts a refresh in the background, unless one is running."""
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = detached_task(self.refresh(), "refresh")

    async def _refresh_shard(self, pool: Pool) -> None:
        try:
            newest = await self._read_slots(pool)
            rows = await pool.fetch(CLUSTER["topology"]) if newest > self.topology.version else ()
        except ShardFailed as error:
            log.debug("not refreshed: %s", error)
            return
        except WrongShard as error:
            log.error("%s", error.detail)
            return
        if rows:
            await self._adopt_topology(Topology.from_json(rows[0]["document"]))

    async def _read_slots(self, pool: Pool) -> int:
        """Returns the version of the newest topology that the shard has, 0 if it has none."""
        restarts_seen = self._restarts_seen
        rows = await pool.fetch(CLUSTER["slots_since"], self._seen.get(pool.name, -1))
        if self._note_start(pool.name, rows[0]):
            restarts_seen = self._restarts_seen
            rows = await pool.fetch(CLUSTER["slots_since"], -1)
        for row in rows:
            if row["slots"]:
                self.map.take(pool.name, row["slots"], SlotState(row["state"]), row["epoch"], row["peer"])
        if restarts_seen == self._restarts_seen:
            self._seen[pool.name] = rows[0]["ownership"]
        return rows[0]["topology"] or 0

    def _note_start(self, name: str, row: Mapping[str, Any]) -> bool:
        """Returns whether the shard's server has restarted: the slot map may then know more of it than it does
        itself."""
        if row["attested"]:
            self._unattested.pop(name, None)
        else:
            self._unattested.setdefault(name, "its server has restarted and is not attested yet")
        before = self._started.get(name)
        self._started[name] = row["started"]
        if before in (None, row["started"]):
            return False
        self.map.forget(name)
        self._restarts_seen += 1
        self._seen.clear()  # slots believed to be its own may belong to other shards: read all of them again
        return True

    async def _attest(self) -> None:
        """Attests restarted shards of which no slot belongs to another shard, so that they serve again."""
        clock = asyncio.get_running_loop().time
        async with self._attesting:
            if not self._unattested or clock() < self._attest_after:
                return
            began = clock()
            try:
                for each in await find_restarted(self.topology, self._fetch):
                    self._note_attested(each.name, await attest(each, self._fetch))
                    if each.assessment.replaced:
                        self.pool(each.name).try_other_host()
            except ShardFailed as error:
                log.debug("no shard was attested: %s", error)
            self._attest_after = clock() + max(ATTEST_RETRY_S, ATTEST_PACE * (clock() - began))
        if not self._unattested:
            self._attest_after = 0.0

    def _note_attested(self, name: str, why: str) -> None:
        if not why:
            self._unattested.pop(name, None)
            log.info("shard %s has restarted and serves again", name)
        elif why != self._unattested.get(name):
            self._unattested[name] = why
            log.warning("shard %s has restarted and serves nothing yet: %s", name, why)

    async def _fetch(self, name: str, query: str, *args: object) -> list[Row]:
        return await self.pool(name).fetch(query, *args)

    async def _adopt_topology(self, topology: Topology) -> None:
        if topology.version <= self.topology.version:
            return
        log.debug("topology %d replaces %d", topology.version, self.topology.version)
        self.topology = topology
        self.map.expect(topology)
        self._open_pools()
        names = {shard.name for shard in topology.shards}
        for name in names - self._watchers.keys():
            self._watch(name)
            await self._refresh_shard(self._pools[name])
        for name in self._watchers.keys() - names:
            self._watchers.pop(name).cancel()

    def _watch(self, name: str) -> None:
        self._watchers[name] = endless_task(partial(self._watch_forever, name), f"watch {name}")

    async def _watch_forever(self, name: str) -> None:
        while True:
            try:
                await self._listen(name)
            except (*LOST, ShardFailed, ConfigError, asyncpg.PostgresError) as error:
                log.debug("notifications of shard %s are interrupted: %s", name, type(error).__name__)
            await asyncio.sleep(WATCH_RETRY_S)

    async def _listen(self, name: str) -> None:
        timeout_s = self._settings.statement_timeout_ms / 1000
        pool = self._pools[name]
        generation = pool.generation
        connection = await connect_once(name, self.dsn(name), timeout_s)
        changed = asyncio.Event()
        clock = asyncio.get_running_loop().time
        pinged_at = clock()
        try:
            for channel in CHANNELS:
                await connection.add_listener(channel, lambda *_: changed.set())
            connection.add_termination_listener(lambda *_: changed.set())
            while not connection.is_closed() and generation == pool.generation:
                changed.clear()
                await self._refresh_shard(pool)
                await self._attest()
                await _wait(changed, POLL_S if name not in self._unattested else ATTEST_RETRY_S)
                if changed.is_set():
                    await asyncio.sleep(NOTIFY_DEBOUNCE_S)
                if clock() - pinged_at >= PING_S:
                    await connection.execute("SELECT 1", timeout=timeout_s)
                    pinged_at = clock()
        finally:
            connection.terminate()

    # -- calls to every shard --------------------------------------------------------------------------------

    async def health(self) -> list[ShardHealth]:
        """Asks each shard now. Returns whether it answers, and what is wrong if not."""
        return list(await asyncio.gather(*(self._health(shard.name) for shard in self.topology.shards)))

    async def _health(self, name: str) -> ShardHealth:
        try:
            row = await self.pool(name).fetchrow(CLUSTER["attested"])
        except ShardFailed as error:
            return ShardHealth(name, ok=False, detail=error.reason)
        except WrongShard as error:
            return ShardHealth(name, ok=False, detail=error.detail)
        if not row["attested"]:
            why = self._unattested.get(name, "its server has restarted")
            return ShardHealth(name, ok=False, detail=f"serves nothing yet: {why}")
        return ShardHealth(name, ok=True, detail="answers")

    def states(self) -> list[ShardState]:
        """Returns what is known of each shard without asking it."""
        return [self._state(self._pools[shard.name]) for shard in self.topology.shards]

    def _state(self, pool: Pool) -> ShardState:
        fault = pool.last_error or self._unattested.get(pool.name, "")
        is_restarted = pool.last_error is None and pool.name in self._unattested
        return ShardState(pool.name, fault, pool.silent_s, is_restarted)

    async def changes(self, count: int) -> list[ClusterChange]:
        """Returns the newest `count` entries of the audit log, newest first, of all shards that answer.

        A shard that did not answer then has an older record of a command, or none.
        """
        answers = await asyncio.gather(
            *(self._fetch_or_nothing(shard.name, CLUSTER["changes"], count) for shard in self.topology.shards)
        )
        found: dict[object, ClusterChange] = {}
        for row in (row for rows in answers for row in rows):
            known = found.get(row["id"])
            if known is None or known.outcome == "begun" or not row["outcome"].startswith(UNFINISHED):
                found[row["id"]] = ClusterChange(row["at"], row["who"], row["what"], row["outcome"])
        return sorted(found.values(), key=lambda change: change.at, reverse=True)[:count]

    async def _fetch_or_nothing(self, name: str, query: str, *args: object) -> list[Row]:
        try:
            return await self._fetch(name, query, *args)
        except (ShardFailed, WrongShard):
            return []

    async def migrator_document(self) -> dict[str, Any] | None:
        """Returns the newest status document that a migrator has written, with `age_s`, its age in seconds. None
        if no shard that answers has one."""
        answers = await asyncio.gather(
            *(self._fetch_or_nothing(shard.name, CLUSTER["migrator"]) for shard in self.topology.shards)
        )
        found = (row for rows in answers for row in rows)
        newest = min(found, key=lambda row: float(row["age_s"]), default=None)
        return None if newest is None else {**json.loads(newest["status"]), "age_s": newest["age_s"]}

    def ring_view(self) -> RingView:
        """Returns the topology with the slot counts of the slot map; counts only after a change of either."""
        state = self.topology.version, self.map.changes
        if self._ring_view is None or self._ring_view[:2] != state:
            self._ring_view = *state, self._count_ring()
        return self._ring_view[2]

    def arcs(self, count: int) -> tuple[Arc, ...]:
        """Returns the slot map as `count` arcs; counts at most every ARCS_AGE_S, and only after a change."""
        now, state = time.monotonic(), (self.topology.version, self.map.changes)
        kept = self._arcs.get(count)
        if kept is None or (kept[1] != state and now - kept[0] >= ARCS_AGE_S):
            kept = self._arcs[count] = now, state, self.map.arcs(count)
        return kept[2]

    def place_of(self, code: str) -> SlotPlace:
        """Returns where the slot of a code is."""
        slot = slot_of(code)
        target = place(self.topology)[slot]
        return SlotPlace(slot, self.map.owner(slot), target, self.map.is_in_hand_off(slot))

    def _count_ring(self) -> RingView:
        counts = self.map.counts()
        total = sum(counts.values()) or 1
        placement = place(self.topology)
        shares = tuple(
            ShardShare(
                name=shard.name,
                weight=shard.weight,
                draining=shard.draining,
                address=shard.address,
                slots=counts.get(shard.name, 0),
                target_slots=placement.count(shard.name),
                share=counts.get(shard.name, 0) / total,
            )
            for shard in self.topology.shards
        )
        return RingView(
            cluster_id=self.topology.cluster_id,
            topology_version=self.topology.version,
            virtual_nodes=self.topology.virtual_nodes,
            paused=self.topology.paused,
            shards=shares,
            slots_in_hand_off=self.map.in_hand_off,
            slots_unknown=self.map.unknown,
        )


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return


def unavailable(slot: int) -> Unavailable:
    """Returns the error for a slot that stayed in hand-off for longer than a request waits."""
    return Unavailable(f"slot {slot} is being moved", retry_after_s=1.0, cause=HAND_OFF)
