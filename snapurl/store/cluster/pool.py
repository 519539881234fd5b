"""One shard's connections: bounded, identity-checked, and honest about what a failure may have done.

Every new connection asks the database who it is, so a DSN that points at another shard, at a shard of another
cluster or at an empty database is refused before a statement runs. A failure is reported as `ShardFailed`,
whose `sent` says whether the statement may have been carried out: only the caller knows how to find out.

A connection goes back only from a statement that the server has answered. When one is lost, answers too
late or turns out to lead to a server that is no longer the primary, all of them are dropped: the next call
finds the server that is. One that is late is cut off and not cancelled, since PostgreSQL answers the
cancelling of a commit that waits for a synchronous standby by making it visible without.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg

from snapurl.errors import ConfigError, Unavailable
from snapurl.store.cluster.failover import NotPrimary, connect_primary, prefer_next
from snapurl.store.queries import load_queries
from snapurl.telemetry.metrics import (
    POOL_CONNECTIONS,
    POOL_WAIT_SECONDS,
    POOL_WAITING,
    POOL_WAITS_REFUSED,
    SHARD_ERROR_KINDS,
    SHARD_ERRORS,
    SHARD_UP,
    STATEMENT_SECONDS,
    timing,
)
from snapurl.telemetry.traces import POSTGRESQL, span
from snapurl.tls import tls_fault

log = logging.getLogger("snapurl.pool")

CLUSTER = load_queries("cluster")
T = TypeVar("T")
Row = Mapping[str, Any]

# After a failed connect, calls fail at once instead of each waiting for its own time-out; so often one is tried.
DOWN_S = 0.25
# The client gives a statement this much longer than the server does, so that the server's answer arrives.
CLIENT_GRACE_S = 0.5
# A connection that nobody has needed for this long is closed.
IDLE_S = 60.0
RETRY_AFTER_S = 1.0

# The statement was rolled back by the server, or never started: it has not happened.
_NOT_DONE = (
    asyncpg.QueryCanceledError,
    asyncpg.DeadlockDetectedError,
    asyncpg.OutOfMemoryError,
    asyncpg.DiskFullError,
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.ConfigurationLimitExceededError,
)
# The connection went away with the statement on it: it may have happened.
_LOST = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
_WRONG_SETTINGS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


class ShardFailed(Exception):
    """Shard `name` did not answer. `sent`: the statement may have been carried out all the same. `cause`: under
    what the metrics count a write that this has refused."""

    def __init__(self, name: str, reason: str, *, sent: bool, cause: str = "shard") -> None:
        super().__init__(f"shard {name} {reason}")
        self.name = name
        self.reason = reason
        self.sent = sent
        self.cause = cause

    def as_unavailable(self) -> Unavailable:
        return Unavailable(f"shard {self.name} {self.reason}", retry_after_s=RETRY_AFTER_S, cause=self.cause)


def too_busy(name: str) -> ShardFailed:
    """The refusal of a call to shard `name` for which already too many wait, counted."""
    POOL_WAITS_REFUSED.labels(name).inc()
    return ShardFailed(name, "is too busy", sent=False, cause="no-connection")


class ShardUnknown(ShardFailed):
    """A slot has gone to shard `name`, of which no topology has told this process yet: it is on its way."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "is not known here yet", sent=False)


class WrongShard(ConfigError):
    """A DSN leads to something else than the shard it is said to be."""


_REASONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (_WRONG_SETTINGS, "refuses the user, password or database name of its DSN"),
    (asyncio.TimeoutError, "did not answer in time"),
    (asyncpg.InsufficientPrivilegeError, "does not give its user the rights that it needs"),
    (asyncpg.CannotConnectNowError, "is starting or stopping"),
    (
        (NotPrimary, asyncpg.TargetServerAttributeNotMatched),
        "has no primary: only a standby answers, which waits to be promoted",
    ),
    (asyncpg.TooManyConnectionsError, "has no connection left"),
)


def describe(error: BaseException) -> str:
    """Why a connection failed, in words that hold no address and no secret."""
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    return tls_fault(error) or "is unreachable"


@contextmanager
def telling_rights(name: str) -> Iterator[None]:
    """Turns the refusal of a statement, for want of a right, into a ConfigError that says how it is given."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"shard {name} refuses its user: {error.args[0]}; as the owner of its tables, GRANT snapurl_service "
            "(for snapurl-reshard: snapurl_migrator) TO that user"
        ) from None


def check_identity(name: str, cluster_id: str | None, row: Any) -> None:
    """Raises WrongShard unless `row` (of `cluster`) is shard `name` of the cluster."""
    if row is None:
        raise WrongShard(
            f"the DSN of shard {name} leads to an empty database, but the cluster is initialised: "
            f"point it at the real {name}, or take it out of SNAPURL_SHARDS"
        )
    if cluster_id is not None and row["cluster_id"] != cluster_id:
        raise WrongShard(f"the DSN of shard {name} leads to a shard of another cluster ({row['cluster_id']})")
    if row["shard"] != name:
        raise WrongShard(f"the DSN of shard {name} leads to shard {row['shard']}: are two DSNs swapped?")


class Pool:
    """The connections to one shard; at most `size` of them, each checked when it is made."""

    def __init__(
        self,
        name: str,
        dsn: str,
        cluster_id: str,
        *,
        size: int,
        wait_ms: int,
        statement_timeout_ms: int,
    ) -> None:
        self.name = name
        self.last_error: str | None = None
        self._cluster_id = cluster_id
        self._wait_s = wait_ms / 1000
        self._connect_s = statement_timeout_ms / 1000
        self._answer_s = statement_timeout_ms / 1000 + CLIENT_GRACE_S
        self._down_until = 0.0
        self._is_silent = False  # since an attempt to connect failed that began after the last answer
        self._heard_at = 0.0
        self._free = asyncio.Semaphore(size)
        self._size = size
        self._in_use = 0
        self._waiting = 0
        self._waited = timing(POOL_WAIT_SECONDS, name)
        self._took = timing(STATEMENT_SECONDS, name)
        POOL_WAITS_REFUSED.labels(name)
        for kind in SHARD_ERROR_KINDS:
            SHARD_ERRORS.labels(name, kind)
        self._idle: list[tuple[Any, float]] = []  # with the time of last use, the longest unused first
        self.generation = 0
        self._dsn = dsn
        self._server_settings = {
            "application_name": "snapurl",
            "statement_timeout": str(statement_timeout_ms),
            "idle_in_transaction_session_timeout": "60000",
        }

    def try_other_host(self) -> None:
        """The server is one that was replaced: leaves it for another host, if the DSN has one."""
        prefer_next(self._dsn)
        self._drop_all()

    async def open(self) -> None:
        """Makes the pool usable; connects to nothing yet, so a shard may be down."""

    async def close(self) -> None:
        self._drop_all()

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """All rows of one statement. Raises ShardFailed, or WrongShard on a connection to something else."""
        return await self._run(query, lambda connection: connection.fetch(query, *args))

    async def fetch_with_slots(self, query: str, *args: object) -> tuple[list[int], list[Row]]:
        """The slots that this shard answers for, and the rows of a read, in one snapshot."""

        async def read(connection: Any) -> tuple[list[int], list[Row]]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                slots = await connection.fetchval(CLUSTER["served_slots"])
                return slots, await connection.fetch(query, *args)

        return await self._run(query, read)

    async def fetchrow(self, query: str, *args: object) -> Row:
        """The one row of a statement that always answers with one."""
        rows = await self.fetch(query, *args)
        assert len(rows) == 1, f"expected one row, got {len(rows)}"
        return rows[0]

    async def _wait_for_turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        self._waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), self._wait_s)
        except TimeoutError:
            POOL_WAITS_REFUSED.labels(self.name).inc()
            raise ShardFailed(
                self.name, "has no free connection", sent=False, cause="no-connection"
            ) from None
        finally:
            self._waiting -= 1

    async def _connect(self) -> Any:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._open_one()
        except WrongShard as error:
            self.last_error = error.detail
            SHARD_ERRORS.labels(self.name, "wrong").inc()
            raise
        except (*_NOT_DONE, *_LOST, *_WRONG_SETTINGS, asyncpg.InsufficientPrivilegeError) as error:
            if self._heard_at < began:  # else it is back, and this attempt is from before
                self.last_error = describe(error)
                self._is_silent = True
                self._down_until = time.monotonic() + DOWN_S
            SHARD_ERRORS.labels(self.name, "connect").inc()
            raise ShardFailed(self.name, describe(error), sent=False) from error
        self._heard()
        return connection

    def _heard(self) -> None:
        """The shard has answered."""
        self.last_error = None
        self._is_silent = False
        self._down_until = 0.0
        self._heard_at = time.monotonic()

    async def _open_one(self) -> Any:
        connection = await connect_primary(self._dsn, self._connect_s, server_settings=self._server_settings)
        try:
            check_identity(self.name, self._cluster_id, await connection.fetchrow(CLUSTER["identity"]))
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _take_idle(self) -> Any:
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _put_back(self, connection: Any, generation: int) -> None:
        if generation != self.generation or connection.is_closed():
            connection.terminate()
            return
        now = time.monotonic()
        self._idle.append((connection, now))
        while self._idle[0][1] < now - IDLE_S:
            self._idle.pop(0)[0].terminate()

    def _drop_all(self) -> None:
        """Every connection, those in use when they come back: they may lead to a server that is no primary."""
        self.generation += 1
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.terminate()

    def measure(self) -> None:
        """Sets the gauges. Whether the shard is up is what the last call found; there is one every few seconds."""
        SHARD_UP.labels(self.name).set(self.last_error is None)
        POOL_WAITING.labels(self.name).set(self._waiting)
        for state, count in (("in use", self._in_use), ("idle", len(self._idle)), ("most", self._size)):
            POOL_CONNECTIONS.labels(self.name, state).set(count)

    async def _run(self, query: str, work: Callable[[Any], Awaitable[T]]) -> T:
        with span(f"postgresql {self.name}", "client", POSTGRESQL) as entered:
            if entered is not None:
                entered.set_attributes({"db.query.text": query, "snapurl.shard": self.name})
            return await self._run_when_up(work)

    async def _run_when_up(self, work: Callable[[Any], Awaitable[T]]) -> T:
        began = time.monotonic()
        if began < self._down_until:
            SHARD_ERRORS.labels(self.name, "down").inc()
            raise ShardFailed(self.name, self.last_error or "is unreachable", sent=False)
        if self._is_silent:
            # One call per DOWN_S finds out whether it is back; the others need not wait with it.
            self._down_until = began + DOWN_S
        try:
            await self._wait_for_turn()
        except BaseException:
            self._waited.observe(time.monotonic() - began)
            raise
        try:
            return await self._in_turn(began, work)
        finally:
            self._free.release()

    async def _in_turn(self, began: float, work: Callable[[Any], Awaitable[T]]) -> T:
        generation = self.generation
        try:
            connection = self._take_idle() or await self._connect()
        finally:
            given = time.monotonic()
            self._waited.observe(given - began)
        self._in_use += 1
        try:
            answer = await self._guarded(connection, work)
        except (ShardFailed, asyncpg.PostgresError):  # as good as before, or of a generation that is gone
            self._put_back(connection, generation)
            raise
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._in_use -= 1
            self._took.observe(time.monotonic() - given)
        self._put_back(connection, generation)
        return answer

    async def _guarded(self, connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
        too_late = asyncio.get_running_loop().call_later(self._answer_s, connection.terminate)
        try:
            answer = await work(connection)
        except _NOT_DONE as error:
            SHARD_ERRORS.labels(self.name, "refused").inc()
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                self._drop_all()
            raise ShardFailed(self.name, "could not carry that out now", sent=False) from error
        except asyncpg.InsufficientPrivilegeError as error:
            SHARD_ERRORS.labels(self.name, "rights").inc()
            log.error("shard %s: %s", self.name, error.args[0])
            raise ShardFailed(self.name, describe(error), sent=False) from error
        except _LOST as error:
            late = too_late.when() <= asyncio.get_running_loop().time()
            self.last_error = describe(TimeoutError() if late else error)
            SHARD_ERRORS.labels(self.name, "late" if late else "lost").inc()
            self._drop_all()
            raise ShardFailed(self.name, self.last_error, sent=True) from error
        else:
            self._heard()
            return answer
        finally:
            too_late.cancel()
