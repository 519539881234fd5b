"""Arrays as arguments: what asyncpg takes for one, decided by type and not by abstract base class.

asyncpg asks of each element of an array whether it is an array itself, and does so with `isinstance` against the
base classes of `collections.abc`. For one element that takes about 0.4 us, twice as long as encoding it, and bulk
calls pass ten arrays of hundreds. Tests against concrete types take a tenth of that. asyncpg has no setting for it,
so the names that it tests against are replaced in its module. Where a version does not have these names, nothing is
replaced, and arrays are encoded as slowly as before.
"""

from __future__ import annotations

from types import MappingProxyType

from asyncpg.protocol import protocol

CONTAINERS: tuple[type, ...] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()))
"""What is encoded as an array."""

_REPLACED = {"IterableABC": CONTAINERS, "SizedABC": CONTAINERS, "MappingABC": (dict, MappingProxyType)}


def decide_by_type() -> None:
    """Replaces the names, if all of them are there."""
    found = vars(protocol)
    if all(name in found for name in _REPLACED):
        found.update(_REPLACED)
