"""Topologies for the tests of the ring."""

from __future__ import annotations

from collections.abc import Sequence

from ring.topology import Shard, Topology

DEFAULT_VIRTUAL_NODES = 1024


def shard(name: str, weight: float = 1.0, *, draining: bool = False) -> Shard:
    return Shard(name, weight, f"{name}.example:5432/snapurl", draining)


def topology(names: Sequence[str], virtual_nodes: int = DEFAULT_VIRTUAL_NODES) -> Topology:
    return Topology("test", 1, virtual_nodes, tuple(shard(name) for name in names))
