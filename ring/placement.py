"""The ring: which shard *should* hold each slot.

A shard has `round(virtual_nodes * weight)` points on a circle of 2**256: SHA-256 of `name-0`, `name-1`, …,
as uhashring names them. A slot's point is `slot << 242`, the slot as the leading 14 bits. As uhashring's
`get_node` has it (bisect-right), a ring point owns `[previous point, point)`, and what follows the last point
belongs to the first.

The whole ring is built from the topology (about 8 ms for four shards) and depends on nothing else, so the
placements of the last few topologies are cached. Weights become numbers of points here, because uhashring
multiplies them as whole numbers.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Final

from uhashring import HashRing

from ring.slots import SLOT_BITS, SLOT_COUNT
from ring.topology import Topology

_POINT_BITS: Final = 256
_TOPOLOGIES_KEPT: Final = 8  # 128 KiB each


@lru_cache(_TOPOLOGIES_KEPT)
def place(topology: Topology) -> tuple[str, ...]:
    """Returns slot -> name of the shard that should hold it (16,384 names). Draining shards get nothing."""
    shards = (shard for shard in topology.shards if not shard.draining)
    nodes = {shard.name: {"vnodes": topology.points_of(shard), "weight": 1} for shard in shards}
    ring = HashRing(nodes=nodes, hash_fn=_point)
    owners: list[str] = []
    for point, name in ring.get_points():  # ascending, so that each slot is placed once
        end = -(-point >> _POINT_BITS - SLOT_BITS)  # the first slot whose own point is not below it
        owners += [str(name)] * (end - len(owners))
    return (*owners, *owners[:1] * (SLOT_COUNT - len(owners)))


def _point(key: str | int) -> int:
    """Hashes virtual nodes; a slot is a point on the circle already."""
    return key if isinstance(key, int) else int.from_bytes(sha256(key.encode()).digest(), "big")
