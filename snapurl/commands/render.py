"""Renders links and their clicks as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Table
from rich.text import Text

from snapurl.periods import DateRange, Interval

Link = Mapping[str, Any]

BAR_CELLS_MAX = 60


def show_link(link: Link) -> None:
    """Prints every field of a link that has a value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in link.items():
        if value not in (None, "", []):
            table.add_row(name.replace("_", " "), Text(_value(name, value), overflow="fold"))
    Console(highlight=False).print(table)


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows with headings. The first cell, which names its row, is whole; what is too long is folded."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(head, no_wrap=place == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def show_links(links: Sequence[Link]) -> None:
    """Prints one line per link."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("code", no_wrap=True)
    table.add_column("leads to", ratio=1, no_wrap=True, overflow="ellipsis")
    for name in ("title", "tags"):
        table.add_column(name, max_width=24, no_wrap=True, overflow="ellipsis")
    table.add_column("clicks", no_wrap=True, justify="right")
    for name in ("created", "expires"):
        table.add_column(name, no_wrap=True)
    for link in links:
        expires = link["expires_at"]
        table.add_row(
            *map(
                Text,
                (
                    _code(link),
                    link["url"],
                    link["title"] or "",
                    ", ".join(link["tags"]),
                    f"{link['clicks']:,}",
                    _moment(link["created_at"])[:10],
                    _moment(expires)[:10] if expires else "",
                ),
            )
        )
    Console(highlight=False).print(table)


def _code(link: Link) -> str:
    """Returns the code, behind the domain where that is not the default one."""
    return f"{link['domain']}/{link['code']}" if link["domain"] else str(link["code"])


def show_stats(stats: Mapping[str, Any], by: Mapping[str, Mapping[str, Any]]) -> None:
    """Prints who clicked in a period and in the one before, a bar of people for each interval, and the values of
    some kinds with the most clicks."""
    console = Console(highlight=False)
    console.print(Text(_headline(stats)))
    if stats.get("complete") is False:
        console.print(Text("a shard does not answer: its clicks are missing", style="yellow"))
    if not stats["clicks"]:
        return
    people = {point["start"]: point["clicks"] - point["bots"] for point in stats["series"]}
    period = DateRange(
        date.fromisoformat(stats["from"]),
        date.fromisoformat(stats["to"]),
        Interval(stats["interval"]),
        ZoneInfo(stats["tz"]),
    )
    starts = [(start[:16].replace("T", " "), people.get(start, 0)) for start in period.starts()]
    console.print(_bars(starts, console.width))
    for kind, found in by.items():
        if values := [(_source(item["value"]), item["clicks"]) for item in found["values"]]:
            console.print(Text(f"\n{kind}"))
            console.print(_bars(values, console.width))


def _headline(stats: Mapping[str, Any]) -> str:
    people, before = (each["clicks"] - each["bots"] for each in (stats, stats["previous"]))
    counts = [f"{people:,} {'person' if people == 1 else 'people'}", f"{_many(stats['bots'], 'bot')}"]
    if stats["visitors"]:
        counts.insert(1, f"about {_many(stats['visitors'], 'visitor')}")
    change = f" ({100 * (people - before) / before:+.0f} %)" if before else ""
    return f"{', '.join(counts)}; {before:,} people before{change}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show_values(stats: Mapping[str, Any]) -> None:
    """Prints the clicks in all, and a bar for each value of one kind."""
    console = Console(highlight=False)
    console.print(Text(f"{_many(stats['clicks'], 'click')} in all"))
    if found := [(_source(item["value"]), item["clicks"]) for item in stats["values"]]:
        console.print(_bars(found, console.width))


def show_history(history: Mapping[str, Any]) -> None:
    """Prints one line per change, and one per further field that it changed."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("when", "key", "what"):
        table.add_column(name, no_wrap=True)
    table.add_column("field", no_wrap=True)
    table.add_column("from", ratio=1, overflow="fold")
    table.add_column("to", ratio=1, overflow="fold")
    for change in history["changes"]:
        first = (_moment(change["at"]), change["by"], change["kind"])
        for field in change["fields"] or [{"name": "", "old": None, "new": None}]:
            name = field["name"]
            values = ("" if value is None else _value(name, value) for value in (field["old"], field["new"]))
            table.add_row(*map(Text, (*first, name.replace("_", " "), *values)))
            first = ("", "", "")
    console = Console(highlight=False)
    console.print(table)
    if dropped := history["dropped"]:
        console.print(Text(f"{dropped:,} older change{'' if dropped == 1 else 's'} not kept"))


def _bars(counts: Sequence[tuple[str, int]], width: int) -> Table:
    most = max((count for _, count in counts), default=0) or 1
    label = max(len(name) for name, _ in counts)
    cells = max(1, min(BAR_CELLS_MAX, width - label - len(f"{most:,}") - 4))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, count in counts:
        length = -(-count * cells // most)  # a day with one click is seen
        table.add_row(Text(name), Text("█" * length, style="blue"), Text(f"{count:,}"))
    return table


def _source(value: str) -> str:
    return {"": "not told", "*": "others"}.get(value, value)


def _value(name: str, value: Any) -> str:
    if name.endswith("_at"):
        return _moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(item if isinstance(item, str) else json.dumps(item) for item in value)
    return str(value)


def _moment(text: str) -> str:
    """Returns an RFC 3339 time as local time, to the second."""
    return f"{datetime.fromisoformat(text).astimezone():%Y-%m-%d %H:%M:%S}"
