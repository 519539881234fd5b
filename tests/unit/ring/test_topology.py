"""Topologies: refusals, changes, and the document."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ring.errors import RingError, TopologyError
from ring.placement import place
from ring.topology import NAME_PATTERN, Shard, Topology
from tests.unit.ring.topologies import shard, topology

FOUR = topology(("db0", "db1", "db2", "db3"))
NAN = float("nan")
INF = float("inf")

names = st.from_regex(NAME_PATTERN, fullmatch=True)
weights = st.floats(min_value=0.01, max_value=100)
shards = st.builds(shard, names, weights, draining=st.booleans())
topologies = st.builds(
    Topology,
    st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True),
    st.integers(1, 2**62),
    st.integers(64, 16_384),
    st.lists(shards, min_size=1, max_size=6, unique_by=lambda s: s.name)
    .filter(lambda found: not all(s.draining for s in found))
    .map(tuple),
    st.booleans(),
)


def document(**changes: object) -> str:
    return json.dumps(json.loads(FOUR.to_json()) | changes)


def with_first_shard(**changes: object) -> str:
    found: list[dict[str, Any]] = json.loads(FOUR.to_json())["shards"]
    found[0] |= changes
    return document(shards=found)


@given(topologies)
def test_documents_round_trip(value: Topology) -> None:
    """A topology that is written and read again is the same value and the same text."""
    text = value.to_json()
    assert Topology.from_json(text) == value
    assert Topology.from_json(json.dumps(json.loads(text), indent=2)).to_json() == text


def test_the_document_is_canonical() -> None:
    """The document does not depend on the order of the shards or on how a whole-number weight is written."""
    one = Topology("c", 3, 1024, (shard("db1", 2), shard("db0")))
    assert one == Topology("c", 3, 1024, (shard("db0"), shard("db1", 2.0)))
    assert one.to_json() == (
        '{"cluster_id":"c","paused":false,"shards":['
        '{"address":"db0.example:5432/snapurl","draining":false,"name":"db0","weight":1.0},'
        '{"address":"db1.example:5432/snapurl","draining":false,"name":"db1","weight":2.0}'
        '],"version":3,"virtual_nodes":1024}'
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1" * 5000,
        "[" * 100_000,
        "{}",
        document(extra=1),
        document(shards={}),
        document(shards=[]),
        document(shards=[1]),
        document(version=0),
        document(version=True),
        document(version=1.0),
        document(version="1"),
        document(version=2**63),
        document(virtual_nodes=0),
        document(virtual_nodes=16_385),
        document(cluster_id=""),
        document(cluster_id=7),
        document(cluster_id="a b"),
        document(paused=0),
        with_first_shard(extra=1),
        with_first_shard(weight="1"),
        with_first_shard(weight=True),
        with_first_shard(weight=None),
        with_first_shard(weight=0),
        with_first_shard(weight=-1),
        with_first_shard(weight=100.5),
        with_first_shard(weight=10**400),
        with_first_shard(weight=0.0004),
        with_first_shard(weight=NAN),
        with_first_shard(weight=INF),
        with_first_shard(draining=1),
        with_first_shard(name="db1"),
        with_first_shard(name="DB"),
        with_first_shard(name="db0\n"),
        with_first_shard(name=""),
        with_first_shard(name=5),
        with_first_shard(name="x" * 32),
        with_first_shard(address="db1.example:5432/snapurl"),
        with_first_shard(address=None),
        FOUR.to_json().replace('"version":1', '"version":1,"version":2'),
        FOUR.to_json().replace('"weight":1.0', '"weight":1.0,"weight":2.0', 1),
        FOUR.to_json().replace('"weight":1.0', '"weight":1e999', 1),
        FOUR.to_json().replace('"version":1,', ""),
    ],
)
def test_ill_formed_documents_are_refused_in_one_line(text: str) -> None:
    """A document with an unknown, missing, repeated or out-of-range field is refused with one line."""
    with pytest.raises(TopologyError) as caught:
        Topology.from_json(text)
    assert 0 < len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "user:hunter2@db.example:5432/snapurl",
        "hunter2@db.example:5432/snapurl",
        "postgresql://db.example:5432/snapurl",
        "db.example:5432/snapurl?password=hunter2",
        "db.example:hunter2/snapurl",
        "db.example:5432/snapurl password=hunter2",
        "host=db.example password=hunter2",
        "db.example:5432",
        "db.example/snapurl",
        ":5432/snapurl",
        "db.example:0/snapurl",
        "db.example:65536/snapurl",
        "db.example:5432,db2.example:70000/snapurl",
        "db.example:5432/",
        "db.example:5432/a/b",
        "db.example:5432/a\n",
        "db.example:5432/a\x00",
        "db.example:5432/a\x7f",
        "",
    ],
)
def test_addresses_hold_no_secret(address: str) -> None:
    """An address with more than host, port and database is refused, and the message does not repeat it."""
    with pytest.raises(TopologyError) as caught:
        Shard("db0", 1.0, address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:5432/snapurl",
        "[::1]:5432/snapurl",
        "db-a.example:5432,db-b.example:5433/snapurl",
        "%2Fvar%2Frun%2Fpostgresql:5432/snapurl",
        "db.example:65535/Ünïcode-name",
    ],
)
def test_addresses_of_every_kind(address: str) -> None:
    """Host names, IP addresses, several hosts and socket directories are valid addresses."""
    assert Shard("db0", 1.0, address).address == address


@pytest.mark.parametrize("weight", [0, -1, NAN, INF, -INF, 100.1, True, "1"])
def test_weights_out_of_range(weight: Any) -> None:
    """A weight that is not a number above 0 and at most 100 is refused."""
    with pytest.raises(TopologyError, match="weight"):
        FOUR.with_weight("db0", weight)


def test_a_weight_must_give_a_virtual_node() -> None:
    """A weight so small that the shard would have no point on the ring is refused, with the least allowed."""
    with pytest.raises(
        TopologyError, match=r"weight 0\.0001 gives it no virtual node; the least is 0\.00098"
    ):
        FOUR.with_weight("db0", 0.0001)


def test_every_change_is_the_next_version() -> None:
    """Each change gives a new topology with the next version and leaves the old one as it was."""
    changed = [
        FOUR.with_shard(shard("db4")),
        FOUR.with_weight("db0", 2),
        FOUR.drained("db0"),
        FOUR.without("db0"),
        FOUR.with_paused(True),
        FOUR.back_to(FOUR),
    ]
    assert {value.version for value in changed} == {2}
    assert FOUR.version == 1
    assert changed[0].shard("db4") == shard("db4")
    assert changed[1].shard("db0").weight == 2.0
    assert changed[2].shard("db0").draining
    assert [s.name for s in changed[3].shards] == ["db1", "db2", "db3"]
    assert changed[4].paused


def test_the_last_shard_cannot_go() -> None:
    """The last shard that is not draining can be neither drained nor removed."""
    last = topology(("db0", "db1")).drained("db0")
    for change in (last.drained, last.without):
        with pytest.raises(TopologyError, match="db1 is the last"):
            change("db1")
    assert [s.name for s in last.without("db0").shards] == ["db1"]


def test_changes_that_make_no_sense() -> None:
    """Unknown shards, a second shard of one name or address, and draining twice are refused."""
    with pytest.raises(TopologyError, match="there is no shard 'db9'; there are db0, db1, db2, db3"):
        FOUR.shard("db9")
    for change in (FOUR.drained, FOUR.without):
        with pytest.raises(TopologyError, match="there is no shard 'db9'"):
            change("db9")
    with pytest.raises(TopologyError, match="is there already"):
        FOUR.with_shard(shard("db0", 3))
    with pytest.raises(TopologyError, match="address"):
        FOUR.with_shard(Shard("db4", 1, "db0.example:5432/snapurl"))
    with pytest.raises(TopologyError, match="draining already"):
        FOUR.drained("db0").drained("db0")
    with pytest.raises(TopologyError, match="is draining"):
        FOUR.drained("db0").with_weight("db0", 2)
    with pytest.raises(TopologyError, match="cluster"):
        FOUR.back_to(Topology("other", 1, 64, FOUR.shards))


def test_a_draining_shard_can_be_taken_back() -> None:
    """Adding a draining shard again, at the same address, ends its draining."""
    draining = FOUR.drained("db2")
    assert place(draining.with_shard(shard("db2"))) == place(FOUR)
    with pytest.raises(TopologyError, match="another address"):
        draining.with_shard(Shard("db2", 1, "elsewhere:1/snapurl"))


@settings(max_examples=25)
@given(topologies, names, weights)
def test_cancelling_places_every_slot_as_before(before: Topology, name: str, weight: float) -> None:
    """A cancel restores the earlier placement, and keeps shards that were added since as draining."""
    if name in {s.name for s in before.shards}:
        return
    small = Topology(before.cluster_id, before.version, 64, before.shards)
    back = small.with_shard(shard(name, weight)).back_to(small)
    assert back.version == small.version + 2
    assert back.shard(name).draining
    assert place(back) == place(small)


def test_refusals_are_of_one_kind() -> None:
    """Everything that the ring refuses can be caught as RingError."""
    assert issubclass(TopologyError, RingError)
