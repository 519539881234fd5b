"""Renders estimates and status as text."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ring.slots import SLOT_COUNT
from tools.change.estimate import Estimate
from tools.cluster.status import ClusterStatus


def duration(seconds: float | None) -> str:
    """Returns `1 h 05 min`, `2 min 10 s`, `8 s`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    whole = max(1, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def size(count: int) -> str:
    """Returns bytes in a readable unit: `614 kB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def estimate_lines(found: Estimate) -> RenderableType:
    """Returns a table of the shards before and after the change, then what moves, notes and obstacles."""
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
    if found.slots_per_s:
        time_needed = (
            f"about {duration(found.seconds)} at the migrator's last pace, {found.slots_per_s:,.0f} slots/s"
        )
    else:
        measured = f" at {found.rows_per_s:,.0f} rows/s, measured now" if found.rows_per_s else ""
        sparing = ", longer because the migrator spares the service" if found.is_sparing else ""
        time_needed = f"at least {duration(found.seconds)}{measured}{sparing}"
    lines = [
        f"{found.slots_to_move:,} slots move ({share:.1%}), with about {found.rows_to_move:,} rows: "
        + (time_needed if found.seconds is not None else "the time cannot be estimated")
    ]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"obstacle: {obstacle}" for obstacle in found.obstacles]
    return Group(table, Text(""), *(Text(line) for line in lines))


def status_line(found: ClusterStatus) -> str:
    """Returns the status as one line."""
    parts = [f"topology {found.topology_version}", *_cluster_parts(found)]
    if found.migrator_runs:
        parts += _migrator_parts(found)
    elif found.age_s is None:
        parts.append("no migrator has run yet: start one with `snapurl-reshard run`")
    else:
        heartbeat = f"last heartbeat {duration(found.age_s)} ago"
        parts.append(f"NO MIGRATOR RUNS ({heartbeat}): start one with `snapurl-reshard run`")
    if found.age_s is not None and found.migrator.last_error:
        parts.append(f"last error: {found.migrator.last_error}")
    return "; ".join(parts)


def _cluster_parts(found: ClusterStatus) -> list[str]:
    parts = ["PAUSED: continue with `snapurl-reshard resume`"] if found.paused else []
    if found.slots_left:
        parts.append(f"{found.slots_left:,} slots left")
    parts += [f"{count} {state}" for state, count in found.in_hand_off.items()]
    parts += [f"shard {shard.name} {shard.silent}" for shard in found.shards if shard.silent]
    if found.unowned or found.contested:
        parts.append(
            f"{found.unowned} slots without an owner, {found.contested} with two: see `snapurl-reshard doctor`"
        )
    if parts:
        return parts
    drained = [
        f"{each.name} may be switched off when its old rows are deleted"
        for each in found.shards
        if each.draining
    ]
    return drained or ["every slot is where the ring wants it"]


def _migrator_parts(found: ClusterStatus) -> list[str]:
    status, slots_left = found.migrator, found.slots_left  # the status is up to half a second old
    parts = [] if status.state == "moving" and not slots_left else [f"the migrator is {status.state}"]
    if status.slots_total >= slots_left > 0 and status.topology_version == found.topology_version:
        parts.append(f"{status.slots_total - status.slots_left}/{status.slots_total} slots moved")
        parts.append(f"{status.rows_copied:,} rows at {status.rows_per_s:,.0f}/s")
        parts.append(f"ETA {duration(status.eta_s)}")
    pauses = status.pauses
    if pauses.count:
        parts.append(f"pauses p50 {pauses.p50_ms:.0f} p99 {pauses.p99_ms:.0f} max {pauses.max_ms:.0f} ms")
    if status.lag_rows:
        parts.append(f"{status.lag_rows:,} rows behind")
    if status.throttle:
        parts.append(f"throttled: {status.throttle}")
    if status.orphans:
        parts.append(f"{status.orphans} released slots to clean")
    return parts


def shard_table(found: ClusterStatus) -> RenderableType:
    """Returns a table of the shards: the slots that each has, and will have."""
    table = _table("shard", "weight", "slots", "")
    for shard in found.shards:
        weight = "draining" if shard.draining else f"{shard.weight:g}"
        goal = shard.silent or (f"→ {shard.slots_goal:,}" if shard.slots_goal != shard.slots else "")
        table.add_row(shard.name, weight, f"{shard.slots:,}", goal)
    return table


def status_lines(found: ClusterStatus) -> RenderableType:
    """Returns the shards, the status line and the current moves."""
    return Group(shard_table(found), Text(""), Text(status_line(found)), *_moves(found))


def status_view(found: ClusterStatus) -> RenderableType:
    """Returns the live display: the same with a progress bar."""
    is_current = found.migrator.topology_version == found.topology_version
    total = max(1, found.migrator.slots_total if is_current else 0, found.slots_left)
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
