"""The chart of clicks in a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from snapurl.commands.render import show_stats, show_values


def test_each_interval_has_a_bar_in_proportion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval without clicks has no bar and one with few a short one; the numbers before are beside."""
    monkeypatch.setenv("COLUMNS", "40")
    counts = [("2030-01-28", 2, 1), ("2030-01-30", 1_000, 0)]
    series = [{"start": start, "clicks": clicks, "bots": bots} for start, clicks, bots in counts]
    stats: dict[str, Any] = {
        "from": "2030-01-28", "to": "2030-01-30", "interval": "day", "tz": "UTC", "series": series,
        "clicks": 1_002, "bots": 1, "visitors": 900, "previous": {"clicks": 803, "bots": 3}, "complete": False,
    }  # fmt: skip
    values = [{"value": "", "clicks": 1_000}, {"value": "news.example", "clicks": 8}]
    show_stats(stats, {"referrer": {"values": values}, "country": {"values": []}})
    out = capsys.readouterr().out
    head, rest = out.replace("\n", " ").split("before")[0], out.splitlines()
    assert head == "1,001 people, about 900 visitors, 1 bot; 800 people "
    assert "(+25 %)" in out and "a shard does not answer" in out
    assert all(len(line) <= 40 for line in rest)
    days = [line.split() for line in rest if line.startswith("2030")]
    assert [row[0] for row in days] == ["2030-01-28", "2030-01-29", "2030-01-30"]
    assert [(row[1:-1], row[-1]) for row in days[:2]] == [(["█"], "1"), ([], "0")]
    assert days[2][2] == "1,000" and set(days[2][1]) == {"█"} and len(days[2][1]) > 10
    assert [line.split("█")[0].strip() for line in rest[-3:]] == ["referrer", "not told", "news.example"]


def test_each_value_of_a_kind_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not told, and what is beyond the bound, have words; the order is that of the answer."""
    monkeypatch.setenv("COLUMNS", "40")
    values = [{"value": "DE", "clicks": 5}, {"value": "", "clicks": 3}, {"value": "*", "clicks": 1}]
    show_values({"clicks": 9, "values": values})
    total, *lines = capsys.readouterr().out.splitlines()
    assert total == "9 clicks in all"
    assert [(line.split("█")[0].strip(), line.split()[-1]) for line in lines] == [
        ("DE", "5"), ("not told", "3"), ("others", "1"),
    ]  # fmt: skip
    show_values({"clicks": 1, "values": []})
    assert capsys.readouterr().out == "1 click in all\n"
