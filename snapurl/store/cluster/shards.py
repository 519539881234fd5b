"""All shards of the cluster: one pool each, the newest topology, and news of both.

A process is given DSNs, reads the highest topology version from whichever shard answers, and connects to
every shard the topology names, also to those that it was given no DSN for: they are reached at the topology's
address with the credentials of the first DSN. A shard that is down costs only the slots it holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from ring.errors import RingError
from ring.ownership import SlotRow, SlotState
from ring.placement import place
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.errors import ConfigError, Unavailable
from snapurl.model import RingView, ShardHealth, ShardShare
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
    telling_rights,
)
from snapurl.store.cluster.rejoin import attest, find_restarted
from snapurl.store.cluster.slot_map import SlotMap
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task
from snapurl.telemetry.metrics import (
    SHARD_ATTESTED,
    SHARD_UP,
    SLOTS_IN_HAND_OFF,
    SLOTS_UNKNOWN,
    TOPOLOGY_VERSION,
)

log = logging.getLogger("snapurl.shards")
T = TypeVar("T")

# How often the map is compared with the shards when no news arrive: news may be lost without harm.
POLL_S = 5.0
NOTIFY_DEBOUNCE_S = 0.1  # a hand-off makes several in a row; whoever needs one sooner asks for it
WATCH_RETRY_S = 1.0
# A look at a shard that has started anew reads every shard's slots: after one in vain the next waits, also
# so many times as long as it took.
ATTEST_RETRY_S = 0.25
ATTEST_PACE = 8
# What a write is counted under that stayed undone since its slot was being moved.
HAND_OFF = "hand-off"
# What asyncpg raises on a connection that ended under it.
CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)


async def read_topology(settings: Settings) -> Topology:
    """The newest topology that any configured shard has.

    Raises ConfigError on a DSN that leads to the wrong place, when no shard answers, and when the cluster is
    not initialised.
    """
    dsns = settings.shard_dsns
    timeout_s = settings.statement_timeout_ms / 1000
    answers = await asyncio.gather(
        *(_ask(item.name, item.dsn, timeout_s) for item in dsns), return_exceptions=True
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
        raise none_answers(silent)
    for failed in silent:
        log.warning("%s; going on without it", failed)
    return _agree(found)


def none_answers(silent: Sequence[ShardFailed]) -> ConfigError:
    """The refusal to begin without any shard, with the reason that the first of them gives."""
    return ConfigError(f"no shard answers ({silent[0]}): check SNAPURL_SHARDS and that PostgreSQL runs")


def _agree(found: dict[str, tuple[Any, Topology | None]]) -> Topology:
    topologies = [topology for _, topology in found.values() if topology is not None]
    if not topologies or any(row is not None and row["state"] != "ready" for row, _ in found.values()):
        raise ConfigError("the cluster is not initialised: run `snapurl migrate`")
    newest = max(topologies, key=lambda topology: topology.version)
    named = {shard.name for shard in newest.shards}
    for name, (row, _) in found.items():
        if row is None and name not in named:
            continue  # a database that is still to become a shard: its DSN may be known before it is one
        check_identity(name, newest.cluster_id, row)
    return newest


async def _ask(name: str, dsn: str, timeout_s: float) -> tuple[Any, Topology | None]:
    connection = await connect_once(name, dsn, timeout_s)
    try:
        with telling_rights(name):
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
    """One connection outside the pools. Raises ShardFailed, or ConfigError when the DSN itself is refused."""
    try:
        if word := missing_file(dsn):
            raise ConfigError(f"the DSN of shard {name}: there is no such file as {word} names")
        return await connect_primary(
            dsn, timeout_s, command_timeout=60.0, server_settings={"application_name": application}
        )
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise ConfigError(f"shard {name} refuses the user or password of its DSN") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"shard {name} does not let the user of its DSN connect: GRANT it CONNECT"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise ConfigError(f"shard {name} has no database of the name in its DSN") from error
    except ssl.SSLError as error:  # a certificate that is refused is a ValueError, too
        raise ShardFailed(name, describe(error), sent=False) from error
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        if "root certificate" in str(error):
            raise ConfigError(f"the DSN of shard {name} names no sslrootcert to verify it by") from error
        raise ConfigError(f"the DSN of shard {name} cannot be read") from error
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ShardFailed(name, describe(error), sent=False) from error


async def close_quietly(connection: Any, timeout_s: float) -> None:
    """Closes a connection; that its server takes too long over it changes nothing of what was done."""
    try:
        await connection.close(timeout=timeout_s)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
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
        self._refreshing: asyncio.Task[None] | None = None
        self._started: dict[str, datetime] = {}
        self._forgotten = 0  # how often a shard's server was seen to have started anew
        self._returned: dict[str, str] = {}  # shard -> why it serves nothing yet
        self._vouching = asyncio.Lock()
        self._vouch_after = 0.0

    @classmethod
    async def connect(cls, settings: Settings) -> Shards:
        """Reads the topology, opens a pool per shard and loads ownership. Raises ConfigError."""
        shards = cls(settings, await read_topology(settings))
        await shards._open_pools()
        await shards.refresh()
        for name in shards._pools:
            shards._watch(name)
        return shards

    async def close(self) -> None:
        await cancel_and_wait(self._refreshing, *self._watchers.values())
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def pool(self, name: str) -> Pool:
        """The pool of shard `name`. Raises ShardUnknown for a shard of which no topology has come yet."""
        pool = self._pools.get(name)
        if pool is None:
            self.refresh_soon()
            raise ShardUnknown(name)
        return pool

    def serves(self, name: str) -> bool:
        """Whether shard `name` does, as far as is known: it answered the last call, and has not started anew."""
        pool = self._pools.get(name)
        return pool is not None and pool.last_error is None and name not in self._returned

    def dsn(self, name: str) -> str:
        """The DSN of a shard of the topology."""
        return dsn_of(self._settings, self.topology, name)

    async def _open_pools(self) -> None:
        settings = self._settings
        for shard in self.topology.shards:
            if shard.name not in self._pools:
                pool = Pool(
                    shard.name,
                    self.dsn(shard.name),
                    self.topology.cluster_id,
                    size=settings.pool_connections,
                    wait_ms=settings.pool_wait_ms,
                    statement_timeout_ms=settings.statement_timeout_ms,
                )
                await pool.open()
                self._pools[shard.name] = pool

    def measure(self, process: str) -> None:
        """Sets the gauges of a `process`. A shard that has left the topology has no value any more."""
        names = {shard.name for shard in self.topology.shards}
        for name, pool in self._pools.items():
            if name in names:
                pool.measure()
                SHARD_ATTESTED.labels(name).set(name not in self._returned)
            else:
                SHARD_UP.labels(name).set(math.nan)
                SHARD_ATTESTED.labels(name).set(math.nan)
        TOPOLOGY_VERSION.labels(process).set(self.topology.version)
        SLOTS_IN_HAND_OFF.set(self.map.in_hand_off)
        SLOTS_UNKNOWN.set(self.map.unknown)

    # -- news ------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Takes what has changed on every shard that answers."""
        pools = [self._pools[shard.name] for shard in self.topology.shards]
        await asyncio.gather(*(self._refresh_shard(pool) for pool in pools))
        await self._vouch()

    def refresh_soon(self) -> None:
        """Begins a refresh unless one is under way; a silent shard delays nobody who waits for the others."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = detached_task(self.refresh(), "refresh")

    async def _refresh_shard(self, pool: Pool) -> None:
        try:
            await self._take_slots(pool)
            rows = await pool.fetch(CLUSTER["topology"])
        except ShardFailed as error:
            log.debug("no news: %s", error)
            return
        except WrongShard as error:
            log.error("%s", error.detail)
            return
        if rows:
            await self._adopt(Topology.from_json(rows[0]["document"]))

    async def _take_slots(self, pool: Pool) -> None:
        forgotten = self._forgotten
        rows = await pool.fetch(CLUSTER["slots_since"], self._seen.get(pool.name, -1))
        if self._note_start(pool.name, rows[0]):
            forgotten = self._forgotten
            rows = await pool.fetch(CLUSTER["slots_since"], -1)
        changed = (
            SlotRow(row["slot"], SlotState(row["state"]), row["epoch"], row["peer"])
            for row in rows
            if row["slot"] is not None
        )
        self.map.take(pool.name, changed)
        if forgotten == self._forgotten:
            self._seen[pool.name] = rows[0]["ownership"]

    def _note_start(self, name: str, row: Mapping[str, Any]) -> bool:
        """True if the shard's server has started anew: more may have been heard of it than it knows."""
        if row["attested"]:
            self._returned.pop(name, None)
        else:
            self._returned.setdefault(
                name, "its server has started anew and was not compared with the others yet"
            )
        before = self._started.get(name)
        self._started[name] = row["started"]
        if before in (None, row["started"]):
            return False
        self.map.forget(name)
        self._forgotten += 1
        self._seen.clear()  # others may know of slots that were taken for its own: all are read again
        return True

    async def _vouch(self) -> None:
        """Has shards that have started anew serve again, if none of their slots is another's."""
        clock = asyncio.get_running_loop().time
        async with self._vouching:
            if not self._returned or clock() < self._vouch_after:
                return
            began = clock()
            try:
                for each in await find_restarted(self.topology, self._fetch):
                    self._note_verdict(each.name, await attest(each, self._fetch))
                    if each.assessment.replaced:
                        self.pool(each.name).try_other_host()
            except ShardFailed as error:
                log.debug("nobody is vouched for now: %s", error)
            self._vouch_after = clock() + max(ATTEST_RETRY_S, ATTEST_PACE * (clock() - began))
        if not self._returned:
            self._vouch_after = 0.0

    def _note_verdict(self, name: str, why: str) -> None:
        if not why:
            self._returned.pop(name, None)
            log.info("shard %s has started anew and was vouched for", name)
        elif why != self._returned.get(name):
            self._returned[name] = why
            log.warning("shard %s has started anew and serves nothing yet: %s", name, why)

    async def _fetch(self, name: str, query: str, *args: object) -> list[Row]:
        return await self.pool(name).fetch(query, *args)

    async def _adopt(self, topology: Topology) -> None:
        if topology.version <= self.topology.version:
            return
        log.info("topology %d replaces %d", topology.version, self.topology.version)
        self.topology = topology
        self.map.expect(topology)
        await self._open_pools()
        names = {shard.name for shard in topology.shards}
        for name in names - self._watchers.keys():
            self._watch(name)
            await self._refresh_shard(self._pools[name])
        for name in self._watchers.keys() - names:
            self._watchers.pop(name).cancel()

    def _watch(self, name: str) -> None:
        self._watchers[name] = detached_task(self._watch_for_ever(name), f"watch {name}")

    async def _watch_for_ever(self, name: str) -> None:
        while True:
            try:
                await self._listen(name)
            except (ShardFailed, ConfigError, OSError, asyncpg.PostgresError, *CLIENT_ERRORS) as error:
                log.debug("the news of shard %s are interrupted: %s", name, type(error).__name__)
            await asyncio.sleep(WATCH_RETRY_S)

    async def _listen(self, name: str) -> None:
        timeout_s = self._settings.statement_timeout_ms / 1000
        pool = self._pools[name]
        generation = pool.generation
        connection = await connect_once(name, self.dsn(name), timeout_s)
        news = asyncio.Event()
        try:
            for channel in ("snapurl_slots", "snapurl_topology"):
                await connection.add_listener(channel, lambda *_: news.set())
            connection.add_termination_listener(lambda *_: news.set())
            while not connection.is_closed() and generation == pool.generation:
                news.clear()
                await self._refresh_shard(pool)
                await self._vouch()
                await _wait(news, POLL_S if name not in self._returned else ATTEST_RETRY_S)
                await asyncio.sleep(NOTIFY_DEBOUNCE_S)
                await connection.execute("SELECT 1", timeout=timeout_s)
        finally:
            connection.terminate()

    # -- questions to every shard ----------------------------------------------------------------------------

    async def ask_all(self, ask: Callable[[Pool], Awaitable[T]]) -> list[T]:
        """One answer from every shard, in the order of the topology. Raises Unavailable if one is silent."""
        try:
            return await asyncio.gather(*(ask(self.pool(shard.name)) for shard in self.topology.shards))
        except ShardFailed as error:
            raise error.as_unavailable() from error

    async def health(self) -> list[ShardHealth]:
        """Whether each shard answers now, and what is wrong if not."""
        return list(await asyncio.gather(*(self._health(shard.name) for shard in self.topology.shards)))

    async def _health(self, name: str) -> ShardHealth:
        try:
            row = await self.pool(name).fetchrow(CLUSTER["attested"])
        except ShardFailed as error:
            return ShardHealth(name, ok=False, detail=error.reason)
        except WrongShard as error:
            return ShardHealth(name, ok=False, detail=error.detail)
        if not row["attested"]:
            why = self._returned.get(name, "its server has started anew")
            return ShardHealth(name, ok=False, detail=f"serves nothing yet: {why}")
        return ShardHealth(name, ok=True, detail="answers")

    async def migrator_document(self) -> dict[str, Any] | None:
        """What the migrator last said of itself, as it wrote it, with `age_s`, the seconds since; None if no shard
        that answers has heard of one."""
        found = await asyncio.gather(*(self._migrator_row(shard.name) for shard in self.topology.shards))
        newest = min((row for row in found if row), key=lambda row: float(row["age_s"]), default=None)
        return None if newest is None else {**json.loads(newest["status"]), "age_s": newest["age_s"]}

    async def _migrator_row(self, name: str) -> Mapping[str, Any] | None:
        try:
            rows = await self.pool(name).fetch(CLUSTER["migrator"])
        except (ShardFailed, WrongShard):
            return None
        return rows[0] if rows else None

    def ring_view(self) -> RingView:
        """The topology with what is known of ownership."""
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
    """The refusal of a slot that stayed in hand-off for longer than a request waits."""
    return Unavailable(f"slot {slot} is being moved", retry_after_s=1.0, cause=HAND_OFF)
