"""Arguments that are arrays are recognised without abstract base classes."""

from __future__ import annotations

from asyncpg.protocol import protocol

from snapurl.store.cluster import connection
from snapurl.store.cluster.arrays import CONTAINERS


def test_asyncpg_decides_by_type_what_an_array_is() -> None:
    """Once connections can be made; an asyncpg that names its tests otherwise would slow bulk calls down unseen."""
    assert connection.Connection is not None
    found = vars(protocol)
    assert found["IterableABC"] is found["SizedABC"] is CONTAINERS
    assert isinstance({}, found["MappingABC"])
