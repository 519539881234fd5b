"""A connection to a shard that may be cut at any moment, and the one list of errors that mean a lost connection.

A call on a connection is several awaits: asyncpg prepares the statement, may look types up, then executes. The
deadline of a pool, a timeout or asyncpg itself may terminate the connection between two of them. The call goes on
with an object whose protocol is gone. What it then raises is an accident of the place: InterfaceError or
AttributeError. `Connection` raises ConnectionDoesNotExistError instead, so that no caller has to know the places.

Only a closed connection has its errors replaced. The same errors on a live connection are bugs (a wrong number of
arguments, two calls at a time) and stay what they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar, cast

import asyncpg
from asyncpg.transaction import Transaction

from snapurl.store.cluster.arrays import decide_by_type

decide_by_type()

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])

# The connection is lost. A statement that was under way may have been carried out.
LOST = (
    OSError,  # and so TimeoutError: the answer may still come, but nobody will read it
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InternalClientError,  # also on a live connection: asyncpg no longer knows the state of the protocol
)


@contextmanager
def _loss_on(connection: asyncpg.Connection[Any]) -> Iterator[None]:
    """Raises the loss of `connection` in place of an error that only comes of it."""
    try:
        yield
    except (OSError, asyncpg.PostgresError):
        raise
    except Exception as error:
        if not connection.is_closed():
            raise
        raise asyncpg.ConnectionDoesNotExistError(
            "the connection was closed in the middle of a call"
        ) from error


def _reports_loss(method: Method) -> Method:
    @wraps(method)
    async def call(self: asyncpg.Connection[Any], *args: Any, **options: Any) -> Any:
        with _loss_on(self):
            return await method(self, *args, **options)

    return cast(Method, call)


class _Transaction(Transaction):
    __slots__ = ("_on",)

    def __init__(self, on: Connection, isolation: Any, readonly: bool, deferrable: bool) -> None:
        super().__init__(on, isolation, readonly, deferrable)
        self._on = on

    async def __aenter__(self) -> None:
        with _loss_on(self._on):
            await super().__aenter__()

    async def __aexit__(self, extype: object, ex: object, tb: object) -> None:
        try:
            with _loss_on(self._on):
                await super().__aexit__(extype, ex, tb)
        except asyncpg.ConnectionDoesNotExistError:
            # The server rolls the block back by itself. The error that ended the block says more than this one.
            if ex is None:
                raise


class Connection(asyncpg.Connection):
    """A connection whose calls raise one of LOST when it is closed under them."""

    __slots__ = ()

    add_listener = _reports_loss(asyncpg.Connection.add_listener)
    close = _reports_loss(asyncpg.Connection.close)
    copy_from_query = _reports_loss(asyncpg.Connection.copy_from_query)
    copy_to_table = _reports_loss(asyncpg.Connection.copy_to_table)
    execute = _reports_loss(asyncpg.Connection.execute)
    fetch = _reports_loss(asyncpg.Connection.fetch)
    fetchrow = _reports_loss(asyncpg.Connection.fetchrow)
    fetchval = _reports_loss(asyncpg.Connection.fetchval)

    def transaction(
        self, *, isolation: Any = None, readonly: bool = False, deferrable: bool = False
    ) -> Transaction:
        return _Transaction(self, isolation, readonly, deferrable)
