"""How a plan and a status are rendered."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from ring.ownership import SlotRow, SlotState
from ring.placement import place
from ring.topology import Shard, Topology
from tools.change.estimate import Estimate, ShardEstimate
from tools.cluster.migrator_status import MigratorStatus, MoveStatus, Pauses
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import ClusterStatus, inconsistent_slots, summarize
from tools.commands import render

TOPOLOGY = Topology("c1", 3, 64, tuple(Shard(f"db{n}", 1.0, f"h{n}:5432/d") for n in range(2)))


def snapshot(topology: Topology = TOPOLOGY, silent: str = "") -> Snapshot:
    """Returns a snapshot of two shards that own what TOPOLOGY places on them, read under `topology`."""
    rows: dict[str, list[SlotRow]] = {"db0": [], "db1": []}
    for slot, name in enumerate(place(TOPOLOGY)):
        rows[name].append(SlotRow(slot, SlotState.OWNED, 1, None))
    answered = {name: tuple(found) for name, found in rows.items() if name != silent}
    return Snapshot(topology, answered, {}, {silent: "is unreachable"} if silent else {})


def text(thing: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(thing)
    return out.getvalue()


def test_a_settled_cluster_says_so() -> None:
    """When every slot is where it belongs, both the status line and the JSON say so."""
    found = summarize(snapshot(), MigratorStatus(), 0.5)
    assert found.settled
    assert "every slot is where the ring wants it" in render.status_line(found)
    assert json.loads(json.dumps(found.to_document()))["settled"] is True


def test_no_migrator_is_said_with_the_command_that_starts_one() -> None:
    """If no migrator ever ran or the last one is silent, the line names `snapurl-reshard run`."""
    for age_s in (None, 40.0):
        found = summarize(snapshot(), MigratorStatus(), age_s)
        assert not found.migrator_runs
        assert "`snapurl-reshard run`" in render.status_line(found)


def test_a_move_shows_progress_pauses_and_what_holds_it_back() -> None:
    """The line and the view show slots, rows, rate, ETA, pauses, throttle, last error and moves in progress."""
    status = MigratorStatus(
        state="moving", topology_version=4, slots_total=20_000, slots_left=5,
        rows_copied=1234, rows_per_s=50.0, eta_s=61.0,
        moves=(MoveStatus("slot 3, db0@1 -> db1", "copy", 1.5),), pauses=Pauses(4, 5.0, 9.0, 11.0),
        throttle="a standby lags by 12 s", last_error="it broke",
    )  # fmt: skip
    found = summarize(snapshot(TOPOLOGY.drained("db0")), status, 0.1)
    line = render.status_line(found)
    for part in (
        "slots left",
        "1,234 rows at 50/s",
        "ETA 1 min 01 s",
        "max 11 ms",
        "throttled: a standby",
        "it broke",
    ):
        assert part in line
    for shown in (text(render.status_view(found)), text(render.status_lines(found))):
        assert "slot 3, db0@1 -> db1: copy, 1.5 s" in shown
        assert "draining" in shown


def test_the_bar_has_a_line_of_its_own() -> None:
    """In the live display the status line starts below the bar and is not cut."""
    status = MigratorStatus(state="moving", topology_version=4, slots_total=20_000)
    shown = text(render.status_view(summarize(snapshot(TOPOLOGY.drained("db0")), status, 0.1)))
    bar = next(line for line in shown.splitlines() if "━" in line)
    assert set(bar.strip()) <= set("━╺╸")
    assert "the migrator is moving" in shown


def test_a_migrator_that_has_just_ended_is_not_shown_as_moving() -> None:
    """The state of the shards takes precedence over the migrator's report, which is slightly older."""
    assert "moving" not in render.status_line(summarize(snapshot(), MigratorStatus(state="moving"), 0.1))
    assert "cleaning" in render.status_line(summarize(snapshot(), MigratorStatus(state="cleaning"), 0.1))


def test_a_slot_that_changes_its_owner_between_two_snapshots_is_consistent() -> None:
    """Two owners are reported only if an earlier snapshot shows them too: shards are read at different times."""
    alone = snapshot()
    second = SlotRow(alone.rows["db0"][0].slot, SlotState.OWNED, 2, None)
    both = replace(alone, rows={**alone.rows, "db1": (*alone.rows["db1"], second)})
    assert summarize(both, MigratorStatus(), 0.1, inconsistent_slots(both)).contested == 1
    assert summarize(both, MigratorStatus(), 0.1, inconsistent_slots(alone)).contested == 0


def test_a_silent_shard_is_never_settled() -> None:
    """A shard that does not answer is named with the reason, and the cluster does not count as settled."""
    found = summarize(snapshot(silent="db1"), MigratorStatus(), 0.1)
    assert not found.settled
    assert "shard db1 is unreachable" in render.status_line(found)


def test_pausing_shows() -> None:
    """The status of a paused cluster says how to resume."""
    found: ClusterStatus = replace(summarize(snapshot(), MigratorStatus(), 0.1), paused=True)
    assert "PAUSED" in render.status_line(found)


def test_a_plan_shows_obstacles_and_notes() -> None:
    """The table shows each shard before and after the change, with the obstacles and notes below."""
    shards = (ShardEstimate("db0", 16_384, 8_000, 1000, 500, 2_000_000, 1_000_000),)
    shown = text(
        render.estimate_lines(Estimate(TOPOLOGY, shards, 8_384, 500, 100.0, ("no disk",), ("a note",)))
    )
    for part in (
        "16,384",
        "→ 8,000",
        "2 MB",
        "at least 13 s at 100 rows/s",
        "obstacle: no disk",
        "note: a note",
    ):
        assert part in shown


def test_a_plan_goes_by_the_pace_of_the_migrator_that_runs() -> None:
    """A change is estimated at the pace of the last one. Without one the time is a lower bound, and the plan says
    why it may be longer."""
    plan = Estimate(TOPOLOGY, (), 3_000, 900, 135_304.0, (), (), 100.0, True)
    assert "about 30 s at the migrator's last pace, 100 slots/s" in text(render.estimate_lines(plan))
    unknown = text(render.estimate_lines(replace(plan, slots_per_s=0.0)))
    assert "at least 3 s" in unknown
    assert "longer because the migrator spares the service" in unknown


def test_progress_of_an_older_goal_is_not_shown() -> None:
    """Until the migrator has taken up a new topology, its totals are of the change before, and are not shown."""
    status = MigratorStatus(state="moving", topology_version=3, slots_total=20_000, slots_left=5)
    drained = TOPOLOGY.drained("db0")
    assert "slots moved" not in render.status_line(summarize(snapshot(drained), status, 0.1))
    current = replace(status, topology_version=drained.version)
    assert "slots moved" in render.status_line(summarize(snapshot(drained), current, 0.1))


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "unknown"), (0.2, "1 s"), (70, "1 min 10 s"), (3900, "1 h 05 min")]
)
def test_durations_are_written_for_people(seconds: float | None, said: str) -> None:
    """Durations are written in seconds, minutes or hours."""
    assert render.duration(seconds) == said
