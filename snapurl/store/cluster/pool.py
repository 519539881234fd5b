"""The connections to one shard: bounded, identity-checked, each call with a deadline on the client's clock.

Every new connection reads the identity of its database. A DSN that leads to another shard, to a shard of another
cluster or to an empty database is refused before any other statement runs. A failed call raises `ShardFailed`. Its
`sent` says whether the statement may have been carried out; only the caller knows how to find that out.

Why not asyncpg's pool. It bounds connections, closes idle ones, calls a function for each new connection and can
replace all of them (`expire_connections`). It does not do the following, which belongs where connections are handed
out:

- *Back-off while the shard is down.* There each acquire tries to connect and waits for its own timeout. Here one
  call per DOWN_S tries and the others fail at once, so a dead shard does not slow requests down.
- *Two bounds instead of one.* `acquire(timeout=…)` covers both the wait for a free connection and the connecting.
  Here each has its own: "no free connection" and "does not answer" are different failures with different metrics.
- *A deadline that does not cancel.* asyncpg ends a late or cancelled statement with a CancelRequest, for which
  `release` waits. PostgreSQL answers the cancelling of a commit that waits for a synchronous standby by making it
  visible without one. So a call that is late or cancelled has its connection terminated.
- *Failover.* A lost connection, a late answer or a read-only server closes the idle connections and, as they come
  back, those in use: they may lead to a server that is no longer the primary. `failover.py` finds the one that is.
- *No statement of its own.* `release` resets the session: one more round trip per call, unless that is turned off.
  Here a connection goes back only after its statement was answered, and no statement changes the session.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg

from snapurl.errors import ConfigError, Unavailable
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.failover import NotPostgreSQL, NotPrimary, connect_primary, prefer_next
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

# Seconds between two attempts to connect to a shard that is down. Other calls fail at once in between.
DOWN_S = 0.25
# The client's deadline for a statement is this much later than the server's, so that the server's answer arrives.
CLIENT_GRACE_S = 0.5
# An idle connection is closed after this time.
IDLE_S = 60.0
RETRY_AFTER_S = 1.0

# The server rolled the statement back or never started it.
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
_WRONG_SETTINGS = (
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
# InterfaceError while connecting is no bug: a standby (NotPrimary), or a way to log in that asyncpg does not know.
_CANNOT_CONNECT = (
    *_NOT_DONE,
    *_WRONG_SETTINGS,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InterfaceError,
)


class ShardFailed(Exception):
    """Shard `name` did not answer.

    `sent` says whether the statement may have been carried out, `cause` is the label of a write refused for this.
    """

    def __init__(self, name: str, reason: str, *, sent: bool, cause: str = "shard") -> None:
        super().__init__(f"shard {name} {reason}")
        self.name = name
        self.reason = reason
        self.sent = sent
        self.cause = cause

    def as_unavailable(self) -> Unavailable:
        return Unavailable(f"shard {self.name} {self.reason}", retry_after_s=RETRY_AFTER_S, cause=self.cause)


def too_busy(name: str) -> ShardFailed:
    """Counts and returns the refusal of a call to shard `name` because too many calls wait for it."""
    POOL_WAITS_REFUSED.labels(name).inc()
    return ShardFailed(name, "is too busy", sent=False, cause="no-connection")


class ShardUnknown(ShardFailed):
    """A slot has moved to shard `name`, but this process has not read the topology that names it yet."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "is not known here yet", sent=False)


class WrongShard(ConfigError):
    """A DSN leads to a database that is not the shard of that name."""


_REASONS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (_WRONG_SETTINGS, "refuses the user, password or database name of its DSN"),
    (TimeoutError, "did not answer in time"),
    (socket.gaierror, "has a host name that cannot be resolved"),
    (ConnectionRefusedError, "refuses connections: nothing listens on its port"),
    (FileNotFoundError, "has no socket in the directory of its DSN"),
    (NotPostgreSQL, "is not a PostgreSQL server"),
    ((ConnectionResetError, BrokenPipeError, asyncpg.ConnectionDoesNotExistError), "closed the connection"),
    (asyncpg.InsufficientPrivilegeError, "does not give its user the rights that it needs"),
    (asyncpg.CannotConnectNowError, "is starting or stopping"),
    (
        (NotPrimary, asyncpg.TargetServerAttributeNotMatched),
        "has no primary: only a standby answers, which waits to be promoted",
    ),
    (asyncpg.TooManyConnectionsError, "has no connection left"),
)


def describe(error: BaseException) -> str:
    """Returns why a connection failed, without address or secret."""
    for kinds, reason in _REASONS:
        if isinstance(error, kinds):
            return reason
    if fault := tls_fault(error):
        return fault
    number = error.errno if isinstance(error, OSError) else None
    return f"is unreachable: {os.strerror(number).lower()}" if number else "is unreachable"


@contextmanager
def lost_connection_of(name: str, *, sent: bool = True) -> Iterator[None]:
    """Raises ShardFailed for a connection to shard `name` that is lost in the block."""
    try:
        yield
    except LOST as error:
        raise ShardFailed(name, describe(error), sent=sent) from error


@contextmanager
def statement_errors_of(name: str) -> Iterator[None]:
    """As `lost_connection_of`; raises ConfigError for a statement that shard `name` refuses for lack of a right."""
    try:
        with lost_connection_of(name):
            yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigError(
            f"shard {name} refuses its user: {error.args[0]}; as the owner of its tables, GRANT snapurl_service "
            "(for snapurl-reshard: snapurl_migrator) TO that user"
        ) from None


def check_identity(name: str, cluster_id: str | None, row: Any) -> None:
    """Raises WrongShard unless `row` (of the table `cluster`, None if empty) is shard `name` of the cluster."""
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
    """At most `size` connections to one shard. Connects when a call needs it, so a shard may be down at first.

    `generation` counts how often all connections were closed. `last_error` is why the last call failed, None if it
    was answered.
    """

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
        self._measured: tuple[int, int, int] | None = None  # what the gauges show
        self._cluster_id = cluster_id
        self._wait_s = wait_ms / 1000
        self._connect_timeout_s = statement_timeout_ms / 1000
        self._deadline_s = statement_timeout_ms / 1000 + CLIENT_GRACE_S
        self._retry_at = 0.0
        self._is_down = False  # an attempt to connect has failed since the last answer
        self._is_lost = False  # the same, as the log has said it
        self._answered_at = 0.0
        self._permits = asyncio.Semaphore(size)
        self._size = size
        self._in_use = 0
        self._waiting = 0
        self._wait_seconds = timing(POOL_WAIT_SECONDS, name)
        self._statement_seconds = timing(STATEMENT_SECONDS, name)
        POOL_WAITS_REFUSED.labels(name)
        for kind in SHARD_ERROR_KINDS:
            SHARD_ERRORS.labels(name, kind)
        self._idle: list[tuple[Any, float]] = []  # with the time of last use, oldest first
        self.generation = 0
        self._dsn = dsn
        self._server_settings = {
            "application_name": "snapurl",
            "statement_timeout": str(statement_timeout_ms),
            "idle_in_transaction_session_timeout": "60000",
            # Compiling takes longer than any statement here runs. The planner would compile: it takes the tables of
            # a new shard for large, or, where a function turns sequential scans off, a scan for very expensive.
            "jit": "off",
        }

    def try_other_host(self) -> None:
        """Leaves a server that was replaced: closes the connections and prefers the DSN's next host."""
        prefer_next(self._dsn)
        self._close_all()

    async def close(self) -> None:
        self._close_all()

    async def fetch(self, query: str, *args: object) -> list[Row]:
        """Returns all rows of one statement. Raises ShardFailed, and WrongShard if the DSN leads elsewhere."""
        return await self._run(query, lambda connection: connection.fetch(query, *args))

    async def read_with_slots(self, read: Callable[[Any, list[int]], Awaitable[T]]) -> tuple[list[int], T]:
        """Returns the slots that this shard serves, and what `read` returns for its connection and these slots.

        Both are from one snapshot. The statements of `read` are planned for their arguments.
        """

        async def run(connection: Any) -> tuple[list[int], T]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                slots = await connection.fetchval(CLUSTER["served_slots"])
                return slots, await read(connection, slots)

        return await self._run(CLUSTER["served_slots"], run)

    async def fetchrow(self, query: str, *args: object) -> Row:
        """Returns the row of a statement that always returns exactly one."""
        rows = await self.fetch(query, *args)
        assert len(rows) == 1, f"expected one row, got {len(rows)}"
        return rows[0]

    async def _acquire_permit(self) -> None:
        if not self._permits.locked():
            await self._permits.acquire()
            return
        self._waiting += 1
        try:
            await asyncio.wait_for(self._permits.acquire(), self._wait_s)
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
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._open_checked()
        except WrongShard as error:
            self.last_error = error.detail
            SHARD_ERRORS.labels(self.name, "wrong").inc()
            raise
        except (*_CANNOT_CONNECT, *LOST) as error:
            if self._answered_at < began:  # else another connection was answered meanwhile: the shard is up
                self.last_error = describe(error)
                self._is_down = True
                self._retry_at = time.monotonic() + DOWN_S
                self._note_lost(self.last_error)
            SHARD_ERRORS.labels(self.name, "connect").inc()
            raise ShardFailed(self.name, describe(error), sent=False) from error
        self._note_answer()
        return connection

    def _note_lost(self, why: str) -> None:
        """Logs the first failed attempt to connect since the last answer."""
        if not self._is_lost:
            self._is_lost = True
            log.warning("shard %s %s", self.name, why, extra={"shard": self.name})

    def _note_answer(self) -> None:
        if self._is_lost:
            self._is_lost = False
            log.info("shard %s answers again", self.name, extra={"shard": self.name})
        self.last_error = None
        self._is_down = False
        self._retry_at = 0.0
        self._answered_at = time.monotonic()

    async def _open_checked(self) -> Any:
        connection = await connect_primary(
            self._dsn, self._connect_timeout_s, server_settings=self._server_settings
        )
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

    def _close_all(self) -> None:
        """Closes the idle connections now and those in use when they come back."""
        self.generation += 1
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.terminate()

    @property
    def silent_s(self) -> float | None:
        """The time since the last answer; None if the last call was answered, or none ever was."""
        if self.last_error is None or not self._answered_at:
            return None
        return time.monotonic() - self._answered_at

    def measure(self) -> None:
        """Sets the gauges. The shard counts as up if the last call was answered; there is one every few seconds."""
        SHARD_UP.labels(self.name).set(self.last_error is None)
        state = self._waiting, self._in_use, len(self._idle)
        if state == self._measured:
            return
        self._measured = state
        POOL_WAITING.labels(self.name).set(self._waiting)
        for kind, count in (("in use", self._in_use), ("idle", len(self._idle)), ("most", self._size)):
            POOL_CONNECTIONS.labels(self.name, kind).set(count)

    async def _run(self, query: str, work: Callable[[Any], Awaitable[T]]) -> T:
        with span(f"postgresql {self.name}", "client", POSTGRESQL) as entered:
            if entered is not None:
                entered.set_attributes({"db.query.text": query, "snapurl.shard": self.name})
            return await self._run_unless_down(work)

    async def _run_unless_down(self, work: Callable[[Any], Awaitable[T]]) -> T:
        began = time.monotonic()
        if began < self._retry_at:
            SHARD_ERRORS.labels(self.name, "down").inc()
            raise ShardFailed(self.name, self.last_error or "is unreachable", sent=False)
        if self._is_down:
            # This call tries to connect; the others fail at once until it has had DOWN_S for that.
            self._retry_at = began + DOWN_S
        try:
            await self._acquire_permit()
        except BaseException:
            self._wait_seconds.observe(time.monotonic() - began)
            raise
        try:
            return await self._with_connection(began, work)
        finally:
            self._permits.release()

    async def _with_connection(self, began: float, work: Callable[[Any], Awaitable[T]]) -> T:
        generation = self.generation
        try:
            connection = self._take_idle() or await self._connect()
        finally:
            acquired_at = time.monotonic()
            self._wait_seconds.observe(acquired_at - began)
        self._in_use += 1
        try:
            answer = await self._with_deadline(connection, work)
        except (ShardFailed, asyncpg.PostgresError):  # the connection is usable, or its generation is over
            self._put_back(connection, generation)
            raise
        except BaseException:
            connection.terminate()
            raise
        finally:
            self._in_use -= 1
            self._statement_seconds.observe(time.monotonic() - acquired_at)
        self._put_back(connection, generation)
        return answer

    async def _with_deadline(self, connection: Any, work: Callable[[Any], Awaitable[T]]) -> T:
        deadline = asyncio.get_running_loop().call_later(self._deadline_s, connection.terminate)
        try:
            answer = await work(connection)
        except _NOT_DONE as error:
            SHARD_ERRORS.labels(self.name, "refused").inc()
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                self._close_all()
            raise ShardFailed(self.name, "could not carry that out now", sent=False) from error
        except asyncpg.InsufficientPrivilegeError as error:
            SHARD_ERRORS.labels(self.name, "rights").inc()
            log.error("shard %s: %s", self.name, error.args[0])
            raise ShardFailed(self.name, describe(error), sent=False) from error
        except LOST as error:
            late = deadline.when() <= asyncio.get_running_loop().time()
            self.last_error = describe(TimeoutError() if late else error)
            SHARD_ERRORS.labels(self.name, "late" if late else "lost").inc()
            self._close_all()
            raise ShardFailed(self.name, self.last_error, sent=True) from error
        else:
            self._note_answer()
            return answer
        finally:
            deadline.cancel()
