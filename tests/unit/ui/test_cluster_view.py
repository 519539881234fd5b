"""The cluster page says in one sentence what matters most, and shows numbers that are true."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from math import hypot

import pytest

from ring.arcs import arcs
from ring.placement import place
from ring.slots import SLOT_COUNT
from ring.topology import Shard, Topology
from snapurl.model import ClusterChange, Lag, OwnCounts, RingView, ShardShare, ShardState
from snapurl.ui.cluster_view import (
    ClusterSample,
    Finding,
    Level,
    at_most,
    describe_change,
    short_duration,
    view_of,
)
from snapurl.ui.ring_picture import INNER, OUTER, picture

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BEFORE = Topology("c", 1, 256, tuple(Shard(f"db{n}", 1.0, f"h:{5000 + n}/d") for n in range(4)))
AFTER = BEFORE.with_shard(Shard("db4", 1.0, "h:5004/d"))
ADDED = ClusterChange(NOW, "ada@ops", "add db4", "published: topology 2")
UNFINISHED = [slot for slot in range(SLOT_COUNT) if place(BEFORE)[slot] != place(AFTER)[slot]]
NOTHING = OwnCounts(0.0, {}, {}, {})
DOCUMENT = {
    "state": "moving",
    "age_s": 0.2,
    "topology_version": 2,
    "slots_total": len(UNFINISHED),
    "rows_copied": 1_000,
    "rows_per_s": 500.0,
    "eta_s": 118.0,
    "moves": [{"what": "slot 3, db0@1 -> db4", "state": "copy", "age_s": 0.1}],
    "pauses": {"count": 3, "p50_ms": 5.0, "p99_ms": 9.0, "max_ms": 9.0},
    "lag_rows": 0,
    "throttle": "",
}


def sample(moved: int = 0, faults: dict[str, ShardState] | None = None) -> ClusterSample:
    """A cluster to which db4 was added, when `moved` of the slots have gone there."""
    owners, placement = list(place(BEFORE)), place(AFTER)
    for slot in UNFINISHED[:moved]:
        owners[slot] = placement[slot]
    shares = tuple(
        ShardShare(each.name, 1.0, False, "", owners.count(each.name), placement.count(each.name), 0.0)
        for each in AFTER.shards
    )
    states = [(faults or {}).get(each.name, ShardState(each.name, "", None, False)) for each in AFTER.shards]
    return ClusterSample(
        at=NOW,
        ring=RingView("c", 2, 256, False, shares, 0, 0),
        arcs=arcs(owners, placement, frozenset(UNFINISHED[moved : moved + 8]), 256),
        shards=states,
        reshard=DOCUMENT,
        lag=Lag(0.0, 0),
        redis_fault=None,
        held=0,
        l1_links=0,
        l1_bytes=0,
        changes=(ADDED,),
        counts=NOTHING,
        counts_before=NOTHING,
    )


def percent(topology: Topology, *names: str) -> int:
    """How many percent of the slots those shards have when nothing moves."""
    return round(100 * sum(map(place(topology).count, names)) / SLOT_COUNT)


ALL = len(UNFINISHED)
SILENT = ShardState("db2", "is unreachable", 12.0, False)
EMPTY_SILENT = ShardState("db4", "is unreachable", None, False)
RESTARTED = ShardState("db2", "its server has restarted", None, True)


@pytest.mark.parametrize(
    ("found", "level", "headline"),
    [
        (sample(ALL), Level.WELL, "All well."),
        (sample(ALL * 43 // 100 + 1), Level.BUSY, "Adding db4: 43 %, 2 min left."),
        (replace(sample(), reshard={**DOCUMENT, "topology_version": 1}), Level.BUSY, "Adding db4: 0 %."),
        (replace(sample(ALL - 11), reshard={**DOCUMENT, "slots_total": 0}), Level.WELL, "All well."),
        (sample(ALL - 1), Level.BUSY, "Adding db4: 99 %, 2 min left."),
        (
            sample(ALL, {"db2": SILENT}),
            Level.BAD,
            f"db2 silent for 12 s: {percent(AFTER, 'db2')} % of links from caches only.",
        ),
        (
            sample(0, {"db2": SILENT}),
            Level.BAD,
            f"db2 silent for 12 s: {percent(BEFORE, 'db2')} % of links from caches only.",
        ),
        (
            sample(0, {"db4": EMPTY_SILENT}),
            Level.BAD,
            "db4 silent since this worker began: no slots are there.",
        ),
        (
            sample(ALL, {"db2": RESTARTED}),
            Level.BAD,
            f"db2 restarted, serves nothing yet: {percent(AFTER, 'db2')} % of links from caches only.",
        ),
        (
            sample(ALL, {"db2": SILENT, "db3": replace(SILENT, name="db3")}),
            Level.BAD,
            f"db2 and db3 serve nothing: {percent(AFTER, 'db2', 'db3')} % of links from caches only.",
        ),
        (
            replace(sample(ALL), redis_fault="does not answer"),
            Level.BAD,
            "Redis does not answer: links come from the shards, clicks wait in the workers.",
        ),
        (replace(sample(ALL), lag=Lag(300.0, 9)), Level.WARNING, "Clicks are counted 5 min late."),
        (
            replace(sample(), reshard={**DOCUMENT, "age_s": 9.0}),
            Level.WARNING,
            "Adding db4: 0 %, and no migrator runs.",
        ),
        (replace(sample(), reshard=None), Level.WARNING, "Adding db4: 0 %, and no migrator runs."),
        (
            replace(sample(), ring=replace(sample().ring, paused=True)),
            Level.WARNING,
            "Adding db4: 0 %, paused.",
        ),
        (
            replace(sample(ALL), ring=replace(sample().ring, slots_unknown=7)),
            Level.WARNING,
            "7 slots have no owner that answers.",
        ),
    ],
)
def test_the_headline_says_what_matters_most(found: ClusterSample, level: Level, headline: str) -> None:
    """A loss comes before a delay, a delay before what is under way, and that before peace."""
    view = view_of(found)
    assert (view.level, view.headline) == (level, headline)


def test_a_move_is_shown_also_if_its_migrator_is_of_another_version() -> None:
    """What a migrator of another version says is left out, and what the shards say stays."""
    move = view_of(replace(sample(9), reshard={"state": "moving", "age_s": 0.1, "phase": 3})).move
    assert move is not None
    assert (move.state, move.slots_left, move.batches, move.eta_s) == ("moving", ALL - 9, (), None)


@pytest.mark.parametrize(
    ("found", "findings"),
    [
        (sample(ALL), ()),
        (sample(ALL, {"db2": SILENT}), (Finding("db2 is unreachable", "snapurl-reshard doctor"),)),
        (
            sample(ALL, {"db2": RESTARTED}),
            (Finding("db2 its server has restarted", "snapurl-reshard doctor --fix"),),
        ),
        (
            replace(sample(), reshard=None),
            (Finding(f"{ALL:,} slots have to move, and no migrator runs", "snapurl-reshard run"),),
        ),
        (
            replace(sample(), ring=replace(sample().ring, paused=True)),
            (Finding("Resharding is paused", "snapurl-reshard resume"),),
        ),
    ],
)
def test_each_finding_comes_with_its_command(found: ClusterSample, findings: tuple[Finding, ...]) -> None:
    """What an operator has to do is there as a command to copy, and only then."""
    assert view_of(found).findings == findings


@pytest.mark.parametrize(
    ("what", "outcome", "said"),
    [
        ("add db4", "published: topology 2", "Adding db4"),
        ("add db4 --weight 2 drain db0", "published: topology 2", "Adding db4, draining db0"),
        ("weight db1 2", "published: topology 2", "Changing the weight of db1"),
        ("cancel", "published: topology 3", "Undoing the last change"),
        ("add db4", "finished: topology 2", ""),
        ("something new", "published: topology 2", ""),
    ],
)
def test_a_change_is_named_by_what_it_does(what: str, outcome: str, said: str) -> None:
    """A change under way has the name of what the operator asked for; without one it has none."""
    assert describe_change([ClusterChange(NOW, "ada@ops", what, outcome)]) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (89, "89 s"), (118, "2 min"), (3_600, "1 h 00 min"), (7_500, "2 h 05 min")],
)
def test_durations_are_short(seconds: float, said: str) -> None:
    """A time has as many units as matter."""
    assert short_duration(seconds) == said


def test_times_and_rates_are_of_the_last_seconds() -> None:
    """Calls per second and percentiles are those between the two readings, whatever was before."""
    before = OwnCounts(
        0.0, {"db0": ((0.001, 100.0), (0.01, 100.0), (float("inf"), 100.0))}, {"db0": 3}, {"l1": 5}
    )
    after = OwnCounts(
        10.0,
        {"db0": ((0.001, 100.0), (0.01, 200.0), (float("inf"), 200.0))},
        {"db0": 5},
        {"l1": 14, "shard": 1},
    )
    view = view_of(replace(sample(ALL), counts=after, counts_before=before))
    row = view.shards[0]
    assert (row.statements_per_s, row.errors) == (10.0, 2)
    assert row.p50_ms == pytest.approx(5.5)
    assert view.shards[1].p50_ms is None
    assert (view.caches.l1, view.caches.lookups_per_s) == (0.9, 1.0)
    assert view.caches.shard == pytest.approx(0.1)


def test_a_percentile_beyond_the_last_bound_is_that_bound() -> None:
    """What took longer than the histogram can tell is not said to have taken for ever, or no time."""
    assert at_most(((1.0, 0.0), (5.0, 0.0), (float("inf"), 3.0)), 0.99) == 5.0
    assert at_most((), 0.5) is None


def test_the_area_of_a_colour_is_the_share_of_its_shard() -> None:
    """In the picture each shard has as much of the ring as it has of the slots."""
    view = view_of(sample(ALL // 2))
    drawn = picture(view.arcs, tuple(shard.name for shard in view.shards), view.dark)
    assert [band.name for band in drawn.bands] == ["db4", "db3", "db2", "db1", "db0"]
    edges = [_mean_square_radius(band.path) for band in drawn.bands] + [INNER**2]
    for row, outer, inner in zip(reversed(view.shards), edges, edges[1:], strict=False):
        assert (outer - inner) / (OUTER**2 - INNER**2) == pytest.approx(row.slots / SLOT_COUNT, abs=0.003)


def test_marks_stand_at_the_arcs_that_change() -> None:
    """Each arc has one dash or gap: moving if it has slots in hand-off, waiting if it has others that must go."""
    view = view_of(sample(ALL // 2))
    drawn = picture(view.arcs, tuple(shard.name for shard in view.shards), view.dark)
    for marks, wanted in (
        (drawn.moving, [arc.in_hand_off > 0 for arc in view.arcs]),
        (drawn.waiting, [arc.misplaced > 0 and not arc.in_hand_off for arc in view.arcs]),
    ):
        lengths = [float(length) for length in marks.split()]
        assert [dash > 0 for dash in lengths[::2]] == wanted and sum(lengths) == pytest.approx(len(view.arcs))
    done = view_of(sample(ALL))
    settled = picture(done.arcs, tuple(shard.name for shard in done.shards), done.dark)
    assert (settled.moving, settled.waiting) == ("", "")


def _mean_square_radius(path: str) -> float:
    """Returns the mean of the squares of the radii of a band's outer edge."""
    numbers = [int(number) for number in re.findall(r"-?\d+", path)]
    x, y = numbers[:2]
    points = [(x, y)]
    for dx, dy in zip(numbers[2::2], numbers[3::2], strict=True):
        x, y = x + dx, y + dy
        points.append((x, y))
    return sum(hypot(*point) ** 2 for point in points) / len(points)
