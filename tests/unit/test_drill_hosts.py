"""DSNs with several hosts."""

from __future__ import annotations

import pytest

from ring.topology import Shard, Topology
from snapurl.store.cluster.dsn import address_of, dsn_for
from snapurl.store.cluster.failover import hosts_of
from tools.change.request import Add


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@h1:5433,h2:5434/db", (("h1", 5433), ("h2", 5434))),
        ("postgresql://h1,h2:5434/db?target_session_attrs=primary", (("h1", 5432), ("h2", 5434))),
        ("postgresql://u@[::1]:5433,[fe80::2]/db", (("::1", 5433), ("fe80::2", 5432))),
        ("postgresql://u:p@%2Frun%2Fpg,h2/db", (("/run/pg", 5432), ("h2", 5432))),
        ("postgresql:///db?host=h1,h2", ()),
    ],
)
def test_hosts_of_a_dsn(dsn: str, hosts: tuple[tuple[str, int], ...]) -> None:
    """Each host has its own port, 5432 unless it says another."""
    assert hosts_of(dsn) == hosts


def test_an_address_keeps_every_host() -> None:
    """What the topology remembers of a shard leads, with another's credentials, to the same hosts."""
    dsn = "postgresql://u:p@h1,h2:5434/db4?target_session_attrs=primary"
    assert address_of(dsn) == "h1:5432,h2:5434/db4"
    template = "postgresql://who:what@x1,x2/db0?target_session_attrs=read-write"
    assert (
        dsn_for(address_of(dsn), template)
        == "postgresql://who:what@h1:5432,h2:5434/db4?target_session_attrs=read-write"
    )


def test_a_shard_with_several_hosts_can_be_added() -> None:
    """`add` takes such a DSN, and the topology that comes of it can be written and read."""
    before = Topology("c", 1, 64, (Shard("db0", 1.0, "x:5432/db0"),))
    after = Add("db4", dsn="postgresql://u:p@h1,h2:5434/db4").apply_to(before)
    assert after.shard("db4").address == "h1:5432,h2:5434/db4"
    assert Topology.from_json(after.to_json()) == after
