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
    """Each host of a DSN has its own port, by default 5432."""
    assert hosts_of(dsn) == hosts


def test_an_address_keeps_every_host() -> None:
    """The address of a shard in the topology, combined with any credentials, leads to all hosts of its DSN."""
    dsn = "postgresql://u:p@h1,h2:5434/db4?target_session_attrs=primary"
    assert address_of(dsn) == "h1:5432,h2:5434/db4"
    template = "postgresql://who:what@x1,x2/db0?target_session_attrs=read-write"
    assert (
        dsn_for(address_of(dsn), template)
        == "postgresql://who:what@h1:5432,h2:5434/db4?target_session_attrs=read-write"
    )


def test_a_shard_with_several_hosts_can_be_added() -> None:
    """`add` accepts a DSN with several hosts, and the resulting topology can be written and read."""
    before = Topology("c", 1, 64, (Shard("db0", 1.0, "x:5432/db0"),))
    after = Add("db4", dsn="postgresql://u:p@h1,h2:5434/db4").apply_to(before)
    assert after.shard("db4").address == "h1:5432,h2:5434/db4"
    assert Topology.from_json(after.to_json()) == after
