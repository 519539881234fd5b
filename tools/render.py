"""How things look on a terminal and in a pipe."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tools.progress import Status
from tools.prospect import Prospect


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


def prospect_lines(found: Prospect) -> RenderableType:
    """A table of the shards before and after, and what it takes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("shard", "slots", "", "rows", "", "size", ""):
        table.add_column(title, justify="left" if title == "shard" else "right")
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
    share = found.slots_to_move / 16_384
    took = f"about {duration(found.seconds)} at {found.rows_per_s:,.0f} rows/s, measured now"
    lines = [
        f"{found.slots_to_move:,} slots move ({share:.1%}), with about {found.rows_to_move:,} rows: "
        + (took if found.seconds is not None else "nothing to measure the time with")
    ]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"obstacle: {obstacle}" for obstacle in found.obstacles]
    return Group(table, Text(""), *(Text(line) for line in lines))


def status_line(status: Status, age_s: float | None) -> str:
    """One line that says everything; `age_s` None: no migrator has ever run."""
    if age_s is None:
        return "no migrator has run yet: start one with `snapurl-reshard run`"
    done = status.slots_total - status.slots_left
    parts = [f"{status.state}, topology {status.topology_version}"]
    if status.slots_total and status.slots_left:
        parts.append(f"{done}/{status.slots_total} slots")
        parts.append(f"{status.rows_copied:,} rows at {status.rows_per_s:,.0f}/s")
        parts.append(f"ETA {duration(status.eta_s)}")
    pauses = status.pauses
    if pauses.count:
        parts.append(f"pauses p50 {pauses.p50_ms:.0f} p99 {pauses.p99_ms:.0f} max {pauses.max_ms:.0f} ms")
    if status.throttle:
        parts.append(f"held back: {status.throttle}")
    if status.orphans:
        parts.append(f"{status.orphans} released slots to clean")
    if status.last_error:
        parts.append(f"last error: {status.last_error}")
    if age_s > 5:
        parts.append(f"NO MIGRATOR RUNS (last sign of life {duration(age_s)} ago)")
    return "; ".join(parts)


def status_view(status: Status, age_s: float | None) -> RenderableType:
    """The live display: a bar, the line, and the moves under way."""
    total = max(1, status.slots_total)
    done = total - status.slots_left if status.slots_total else total
    moves = [Text(f"  {move.what}: {move.state}, {move.age_s:.1f} s") for move in status.moves]
    return Group(ProgressBar(total=total, completed=done, width=60), Text(status_line(status, age_s)), *moves)


def show(console: Console, thing: RenderableType | str | dict[str, Any]) -> None:
    """Prints without folding in a pipe."""
    console.print(thing, soft_wrap=not console.is_terminal, highlight=False, markup=False)
