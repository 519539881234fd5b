"""How things look on a terminal and in a pipe."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ring.slots import SLOT_COUNT
from tools.change.estimate import Estimate
from tools.cluster.migrator_status import MigratorStatus
from tools.cluster.status import ClusterStatus


def duration(seconds: float | None) -> str:
    """`1 h 05 min`, `2 min 10 s`, `8 s`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    whole = max(1, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size(count: int) -> str:
    """Bytes as people write them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def estimate_lines(found: Estimate) -> RenderableType:
    """A table of the shards before and after, and what it takes."""
    table = _table("shard", "slots", "", "rows", "", "size", "")
    for shard in found.shards:
        table.add_row(
            shard.name,
            f"{shard.slots:,}",
            f"→ {shard.slots_after:,}",
            f"{shard.rows:,}",
            f"→ {shard.rows_after:,}",
            size(shard.bytes),
            f"→ {size(shard.bytes_after)}",
        )
    share = found.slots_to_move / SLOT_COUNT
    measured = f" at {found.rows_per_s:,.0f} rows/s, measured now" if found.rows_per_s else ""
    took = f"about {duration(found.seconds)}{measured}; longer where a service is spared"
    lines = [
        f"{found.slots_to_move:,} slots move ({share:.1%}), with about {found.rows_to_move:,} rows: "
        + (took if found.seconds is not None else "nothing to measure the time with")
    ]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"obstacle: {obstacle}" for obstacle in found.obstacles]
    return Group(table, Text(""), *(Text(line) for line in lines))


def status_line(found: ClusterStatus) -> str:
    """One line that says everything."""
    parts = [f"topology {found.topology_version}", *_state(found)]
    if found.migrator_runs:
        parts += _work(found.migrator, found.slots_left)
    elif found.age_s is None:
        parts.append("no migrator has run yet: start one with `snapurl-reshard run`")
    else:
        heard = f"last heard of {duration(found.age_s)} ago"
        parts.append(f"NO MIGRATOR RUNS ({heard}): start one with `snapurl-reshard run`")
    if found.age_s is not None and found.migrator.last_error:
        parts.append(f"last error: {found.migrator.last_error}")
    return "; ".join(parts)


def _state(found: ClusterStatus) -> list[str]:
    parts = ["PAUSED: go on with `snapurl-reshard resume`"] if found.paused else []
    if found.slots_left:
        parts.append(f"{found.slots_left:,} slots left")
    parts += [f"{count} {state}" for state, count in found.in_hand_off.items()]
    parts += [f"shard {shard.name} {shard.silent}" for shard in found.shards if shard.silent]
    if found.unowned or found.contested:
        wrong = f"{found.unowned} slots without an owner, {found.contested} with two"
        parts.append(f"{wrong}: see `snapurl-reshard doctor`")
    return parts or ["every slot is where the ring wants it"]


def _work(status: MigratorStatus, slots_left: int) -> list[str]:
    # What it says of itself is half a second old.
    parts = [] if status.state == "moving" and not slots_left else [f"the migrator is {status.state}"]
    if status.slots_total and slots_left:
        parts.append(f"{status.slots_total - status.slots_left}/{status.slots_total} slots moved")
        parts.append(f"{status.rows_copied:,} rows at {status.rows_per_s:,.0f}/s")
        parts.append(f"ETA {duration(status.eta_s)}")
    pauses = status.pauses
    if pauses.count:
        parts.append(f"pauses p50 {pauses.p50_ms:.0f} p99 {pauses.p99_ms:.0f} max {pauses.max_ms:.0f} ms")
    if status.lag_rows:
        parts.append(f"{status.lag_rows:,} rows behind")
    if status.throttle:
        parts.append(f"held back: {status.throttle}")
    if status.orphans:
        parts.append(f"{status.orphans} released slots to clean")
    return parts


def shard_table(found: ClusterStatus) -> RenderableType:
    """Each shard with what it holds and what it is to hold."""
    table = _table("shard", "weight", "slots", "")
    for shard in found.shards:
        weight = "draining" if shard.draining else f"{shard.weight:g}"
        goal = shard.silent or (f"→ {shard.slots_goal:,}" if shard.slots_goal != shard.slots else "")
        table.add_row(shard.name, weight, f"{shard.slots:,}", goal)
    return table


def status_lines(found: ClusterStatus) -> RenderableType:
    """The shards, the line, and the moves under way."""
    return Group(shard_table(found), Text(""), Text(status_line(found)), *_moves(found))


def status_view(found: ClusterStatus) -> RenderableType:
    """The live display: the same, with a bar."""
    total = max(1, found.migrator.slots_total, found.slots_left)
    bar = ProgressBar(total=total, completed=total - found.slots_left, width=60)
    lines = Table.grid()  # a bar does not end its line
    lines.add_row(bar)
    for line in (Text(status_line(found)), *_moves(found)):
        lines.add_row(line)
    return Group(shard_table(found), Text(""), lines)


def _moves(found: ClusterStatus) -> list[Text]:
    moves = found.migrator.moves if found.migrator_runs else ()
    return [Text(f"  {move.what}: {move.state}, {move.age_s:.1f} s") for move in moves]


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title == "shard" else "right")
    return table
