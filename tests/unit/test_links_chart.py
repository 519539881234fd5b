"""The chart of clicks in a terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapurl.commands.render import show_clicks, show_values


def test_each_day_has_a_bar_in_proportion(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day without clicks has no bar and one with few a short one; days before the first click are left out."""
    monkeypatch.setenv("COLUMNS", "40")
    today = datetime.now(UTC).date()
    counts = {today - timedelta(days=60): 7, today - timedelta(days=2): 1, today: 1_000}
    days_counted = [{"day": day.isoformat(), "clicks": count} for day, count in counts.items()]
    stats: dict[str, Any] = {
        "clicks": 1_008,
        "days": days_counted,
        "referrers": [{"host": "", "clicks": 1_000}, {"host": "news.example", "clicks": 8}],
        "browsers": [{"family": "*", "clicks": 1_008}],
    }
    show_clicks(stats, days=4)
    total, *lines = capsys.readouterr().out.splitlines()
    assert total == "1,008 clicks in all"
    assert all(len(line) <= 40 for line in lines)
    days = [line.split() for line in lines[:4]]
    assert [row[0] for row in days] == [(today - timedelta(days=ago)).isoformat() for ago in (3, 2, 1, 0)]
    assert [(row[1:-1], row[-1]) for row in days[:3]] == [([], "0"), (["█"], "1"), ([], "0")]
    assert days[3][2] == "1,000" and set(days[3][1]) == {"█"} and len(days[3][1]) > 10
    assert [line.split("█")[0].strip() for line in lines[4:]] == [
        "", "From", "not told", "news.example", "", "With", "others",
    ]  # fmt: skip
    show_clicks({**stats, "days": days_counted[1:]}, days=366)
    assert (today - timedelta(days=3)).isoformat() not in capsys.readouterr().out


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
