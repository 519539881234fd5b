"""Calls the hand-off's SQL functions, in one round trip each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from ring.topology import NAME_PATTERN

CALL_S_MAX = (
    10.0  # much longer than any step takes; after that the server hangs, and the next attempt resumes
)

IN_SLOTS = "slot = ANY ($1::smallint[])"
"""The same text for all batches, so that a statement is prepared once per connection."""

Argument = str | int | UUID | Sequence[int] | Sequence[UUID] | Sequence[str]


def smallints(slots: Sequence[int]) -> str:
    """Returns the SQL literal of a list of slots."""
    return "'{" + ",".join(str(int(slot)) for slot in slots) + "}'::smallint[]"


async def call(connection: Any, function: str, *arguments: Argument, relaxed: bool = False) -> None:
    """Calls a function of the migrations. A sequence is an array, a string the name of a shard.

    `relaxed` turns synchronous_commit off for the transaction: a crash right after it may undo the step.
    Raises asyncpg's errors, with SN001 if the function did not find the state that its step starts from.
    Raises TimeoutError after CALL_S_MAX; the step may have been done.
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
