"""Statistics over HTTP: periods, time zones, kinds, groups, CSV, and who may see what."""

from __future__ import annotations

from datetime import date

import httpx
import pytest

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks

DAYS = {"from": "2026-05-04", "to": "2026-05-05"}
FORMULA = "=cmd()"


async def count(service: Service, code: str) -> None:
    """Counts clicks on three days as the click consumer does: 10 before, then 6, then 2."""
    slot = slot_of(code)
    campaigns = (
        SourceClicks(SourceKind.UTM_CAMPAIGN, FORMULA, 4),
        SourceClicks(SourceKind.UTM_CAMPAIGN, "sale", 1),
    )
    rows = [
        ClickRow(slot, 1, code, date(2026, 5, 3), 10, hour=9, bots=1),
        ClickRow(slot, 2, code, date(2026, 5, 4), 6, by_kind(campaigns), hour=23, bots=2),
        ClickRow(slot, 3, code, date(2026, 5, 5), 2, hour=0),
    ]
    await count_clicks(service.settings, code, rows, f"of {code}")


def starts(answer: httpx.Response) -> list[tuple[str, int, int]]:
    assert answer.status_code == 200, answer.text
    return [(point["start"], point["clicks"], point["bots"]) for point in answer.json()["series"]]


async def test_statistics_of_a_link(service: Service, api: httpx.AsyncClient) -> None:
    """A period of a link is told by intervals of a time zone, compared with the one before, by kind, and as CSV."""
    code = (await service.shorten())["code"]
    await count(service, code)
    path = f"/api/v1/links/{code}/stats"
    by_day = await api.get(path, params={**DAYS, "compare": "previous"})
    assert starts(by_day) == [("2026-05-04", 6, 2), ("2026-05-05", 2, 0)]
    found = by_day.json()
    assert (found["clicks"], found["bots"], found["previous"]["clicks"]) == (8, 2, 10)
    assert (found["previous"]["from"], found["previous"]["to"]) == ("2026-05-02", "2026-05-03")
    assert found["referrers"] == [{"host": "", "clicks": 8}]
    berlin = {"tz": "Europe/Berlin"}
    assert starts(await api.get(path, params={**DAYS, **berlin})) == [("2026-05-05", 8, 2)]
    by_hour = await api.get(path, params={**DAYS, "interval": "hour", "tz": "Asia/Kolkata"})
    assert starts(by_hour) == [("2026-05-05T04:00+05:30", 6, 2), ("2026-05-05T05:00+05:30", 2, 0)]
    assert starts(await api.get(path, params={"interval": "month"})) == [("2026-05-01", 18, 3)]
    assert starts(await api.get(path, params={"interval": "week"})) == [
        ("2026-04-27", 10, 1),
        ("2026-05-04", 8, 2),
    ]
    of_kind = (await api.get(f"{path}/utm_campaign", params=DAYS)).json()
    told = [(item["value"], item["clicks"]) for item in of_kind["values"]]
    assert (of_kind["clicks"], told) == (8, [(FORMULA, 4), ("", 3), ("sale", 1)])
    table = await api.get(f"{path}/utm_campaign", params=DAYS, headers={"Accept": "text/csv"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert "Accept" in table.headers["vary"]
    assert table.text.splitlines() == ["value,clicks", f"'{FORMULA},4", ",3", "sale,1"]
    table = await api.get(path, params=DAYS, headers={"Accept": "text/csv, */*;q=0.1"})
    assert table.text.splitlines() == ["start,clicks,bots,visitors", "2026-05-04,6,2,0", "2026-05-05,2,0,0"]


async def test_statistics_of_groups_are_for_those_who_may_see_their_links(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A key sees its account and its tags there; an admin key sees accounts, tags and domains of all."""
    own = service.client(await service.key("create", "read"))
    other = service.client(await service.key("create", "read"))
    account = (await own.get("/api/v1/me")).json()["account"]
    answer = await own.post("/api/v1/links", json={"url": "https://example.org/", "tags": ["stats-tag"]})
    await count(service, answer.json()["code"])
    path = "/api/v1/stats"
    assert (await own.get(path, params=DAYS)).json()["clicks"] == 8
    assert (await own.get(path, params={"tag": "stats-tag"})).json()["clicks"] == 18
    assert (await own.get(f"{path}/utm_campaign", params={**DAYS, "account": account})).json()["values"][
        0
    ] == {
        "value": FORMULA,
        "clicks": 4,
    }
    assert (await other.get(path)).json()["clicks"] == 0
    assert (await other.get(path, params={"tag": "stats-tag"})).json()["clicks"] == 0
    for refused in ({"account": account}, {"domain": "127.0.0.1"}):
        assert (await other.get(path, params=refused)).status_code == 403
    for asked in ({"account": account}, {"tag": "stats-tag"}, {"account": account, "tag": "stats-tag"}):
        assert (await api.get(path, params=asked)).json()["clicks"] == 18
    everything = (await api.get(path, params={**DAYS, "compare": "previous"})).json()
    assert everything["clicks"] >= 8 and everything["previous"]["clicks"] >= 10
    assert everything["complete"] and everything["partial"] == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"from": "2026-5-1"}, "from"),
        ({"to": "tomorrow"}, "to"),
        ({"from": "2026-05-02", "to": "2026-05-01"}, "to"),
        ({"from": "1990-01-01", "to": "2026-05-01"}, "from"),
        ({"from": "2026-01-01", "to": "2026-05-01", "interval": "hour"}, "from"),
        ({"interval": "year"}, "interval"),
        ({"tz": "../etc/passwd"}, "tz"),
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"compare": "next"}, "compare"),
        ({"compare": "previous"}, "from"),
        ({"tag": ""}, "tag"),
        ({"domain": "example.org", "tag": "x"}, "domain"),
        ({"color": "red"}, "color"),
    ],
)
async def test_a_period_that_there_is_not_is_refused(
    api: httpx.AsyncClient, query: dict[str, str], pointer: str
) -> None:
    """The refusal of a query says which parameter is wrong."""
    answer = await api.get("/api/v1/stats", params=query)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == f"/query/{pointer}"


async def test_a_kind_that_there_is_not_is_no_address(api: httpx.AsyncClient) -> None:
    """What is told of no click is not found; the refusal names the kinds."""
    answer = await api.get("/api/v1/stats/colour")
    assert answer.status_code == 404
    assert "utm_campaign" in answer.json()["detail"]
    refused = await api.get("/api/v1/stats/country", params={"limit": "0"})
    assert refused.status_code == 422
