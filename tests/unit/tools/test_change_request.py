"""The changes that an operator can request, and how they are parsed."""

from __future__ import annotations

import pytest

from ring.errors import TopologyError
from ring.topology import Shard, Topology
from snapurl.errors import ConfigError
from tools.change.request import Add, Drain, Weight, goal_of, parse_changes

NOW = Topology("c1", 7, 64, tuple(Shard(f"db{n}", 1.0, f"h{n}:5432/d") for n in range(3)), paused=True)


def test_several_changes_are_read_in_order() -> None:
    """Options belong to the preceding `add`, with a space or an equals sign."""
    words = "add db4 --dsn postgresql://h/d --weight=2 drain db1 weight db0 0.5 add db5"
    assert parse_changes(words.split()) == [
        Add("db4", 2.0, "postgresql://h/d"),
        Drain("db1"),
        Weight("db0", 0.5),
        Add("db5"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "grow db4",
        "add",
        "add --dsn x",
        "add db4 --size 3",
        "add db4 --weight",
        "weight db0",
        "weight db0 much",
    ],
)
def test_what_cannot_be_read_is_one_line(words: str) -> None:
    """A change that cannot be parsed is refused with one line that says how to write it."""
    with pytest.raises(ConfigError) as refused:
        parse_changes(words.split())
    assert "\n" not in str(refused.value)


def test_all_changes_make_one_version_and_keep_the_pause() -> None:
    """Any number of changes makes one next version of the goal, paused as before."""
    goal = goal_of(NOW, [Add("db4", 2.0, "postgresql://u:p@h4:5432/d"), Drain("db1"), Weight("db0", 3.0)])
    assert (goal.version, goal.paused) == (8, True)
    assert goal.shard("db4") == Shard("db4", 2.0, "h4:5432/d")
    assert goal.shard("db1").draining
    assert goal.shard("db0").weight == 3


def test_the_database_of_another_shard_is_refused() -> None:
    """The address of an existing shard is refused for another, and the line names the existing one."""
    with pytest.raises(ConfigError, match="is shard db1 of this cluster already"):
        goal_of(NOW, [Add("db4", 1.0, "postgresql://u:p@h1:5432/d")])


@pytest.mark.parametrize("dsn", ["nonsense", "postgresql://[h:1/d", "mysql://h:1/d", "postgresql://u:pw@h:1"])
def test_a_bad_dsn_is_refused_without_its_password(dsn: str) -> None:
    """An invalid DSN is refused with a line that shows the expected form and nothing of the given DSN."""
    with pytest.raises(TopologyError) as refused:
        Add("db4", 1.0, dsn).apply_to(NOW)
    assert "host:port/database" in str(refused.value)
    assert "pw" not in str(refused.value)


def test_the_audit_trail_gets_no_dsn() -> None:
    """The audit trail records a change as it was typed, without its DSN."""
    assert str(Add("db4", 2.0, "postgresql://u:pw@h/d")) == "add db4 --weight 2"
    assert "pw" not in repr(Add("db4", 2.0, "postgresql://u:pw@h/d"))
