"""Calls of the hand-off's SQL functions in one round trip each, with the statement readable on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ring.topology import NAME_PATTERN

CALL_S_MAX = 10.0  # much longer than any step takes; a server that hangs is then left to the next attempt

IN_SLOTS = "slot = ANY ($1::smallint[])"
"""A condition whose text is the same for all batches, so that a statement is parsed once per connection."""

Argument = str | int | UUID | Sequence[int] | Sequence[UUID] | Sequence[str]


def smallints(slots: Sequence[int]) -> str:
    """The SQL literal of a list of slots."""
    return "'{" + ",".join(str(int(slot)) for slot in slots) + "}'::smallint[]"


async def call(connection: Any, function: str, *arguments: Argument, relaxed: bool = False) -> None:
    """Calls a function of the migrations; a sequence is an array, a string the name of a shard.

    The commit of the transaction that it is in waits for the disk (and for standbys) as the server is set,
    unless `relaxed`: then a server that crashes in the next moment has not done it.
    Raises asyncpg's errors: SN001 when the function did not find the state that its step starts from; and
    TimeoutError when the shard has not answered in CALL_S_MAX, whatever it has done.
    """
    statement = f"SELECT {function}({', '.join(map(_literal, arguments))})"
    relaxing = "SET LOCAL synchronous_commit = off; " if relaxed else ""
    await connection.execute(relaxing + statement, timeout=CALL_S_MAX)


def _literal(argument: Argument) -> str:
    match argument:
        case UUID():
            return f"'{argument}'::uuid"
        case str():
            assert NAME_PATTERN.fullmatch(argument), argument
            return f"'{argument}'"
        case int():
            return str(argument)
        case _:
            return "'{" + ",".join(str(item) for item in argument) + "}'"
