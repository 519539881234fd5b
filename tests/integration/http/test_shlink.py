"""Shlink's API: what its clients ask for, and what is refused because this service has no counterpart."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceKind
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import PUBLIC_URL, Service
from tests.support.click_rows import count_clicks
from tests.support.requirements import program, requires
from tests.support.waits import HANG_S

URLS = "/rest/v3/short-urls"
TYPES = "https://shlink.io/api/error/"
NO_CLICKS = {"total": 0, "nonBots": 0, "bots": 0}
DAY = {"startDate": "2026-05-04T00:00:00+00:00", "endDate": "2026-05-05T23:59:59+00:00"}


def new_tag() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


async def create(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await api.post(URLS, json={"longUrl": "https://example.org/", **fields})
    assert answer.status_code == 200, answer.text
    link: dict[str, Any] = answer.json()
    return link


async def refused(api: httpx.AsyncClient, **fields: Any) -> list[str]:
    """Returns the elements that a create is refused for."""
    answer = await api.post(URLS, json={"longUrl": "https://example.org/", **fields})
    return invalid(answer)


def invalid(answer: httpx.Response) -> list[str]:
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), (
        answer.text
    )
    assert answer.json()["type"] == TYPES + "invalid-data", answer.text
    found: list[str] = answer.json()["invalidElements"]
    return found


async def listed(api: httpx.AsyncClient, **query: Any) -> list[str]:
    answer = await api.get(URLS, params=query)
    assert answer.status_code == 200, answer.text
    return [link["shortCode"] for link in answer.json()["shortUrls"]["data"]]


async def count(service: Service, code: str) -> None:
    """Counts clicks of a link as the click consumer does: 6 on one day, 2 of them of bots, and 2 on the next."""
    slot = slot_of(code)
    told = {
        SourceKind.REFERRER: {"news.example.org": 4},
        SourceKind.BROWSER: {"firefox": 3, "bot": 2},
        SourceKind.COUNTRY: {"FR": 3},
        SourceKind.CITY: {"Paris, FR": 1},
    }
    rows = [
        ClickRow(slot, 1, code, date(2026, 5, 4), 6, told, hour=23, bots=2),
        ClickRow(slot, 2, code, date(2026, 5, 5), 2, hour=0),
    ]
    await count_clicks(service.settings, code, rows, f"of {code}")


# -- the SDK -----------------------------------------------------------------------------------------------------


@requires("node")
async def test_the_sdk_of_the_web_client_is_answered(service: Service) -> None:
    """Every call of Shlink's SDK gets what it reads, or a problem that its web client shows."""
    node, script = program("node"), Path(__file__).with_name("shlink_client.mjs")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node, str(script), service.workers[0].url, service.admin_key, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode == 0
    said: dict[str, Any] = json.loads(out)
    values = {name: item["value"] for name, item in said.items() if "value" in item}
    problems = {name: item.get("problem") for name, item in said.items() if "value" not in item}
    assert values["health"]["status"] == values["strangerHealth"]["status"] == "pass"
    assert values["health"]["version"].startswith("4.6.0+snapurl.")
    link = {
        "shortUrl": f"{PUBLIC_URL}/sdk__slug",
        "shortCode": "sdk__slug",
        "longUrl": "https://example.org/sdk?a=1",
        "dateCreated": values["created"]["dateCreated"],
        "tags": ["sdk one", "sdk"],
        "meta": {"validSince": None, "validUntil": "2098-12-31T23:00:00+00:00", "maxVisits": 3},
        "domain": None,
        "title": "SDK",
        "crawlable": False,
        "forwardQuery": True,
        "visitsSummary": NO_CLICKS,
        "hasRedirectRules": False,
    }
    assert values["created"] == values["read"] == link
    assert values["list"]["data"] == [link]
    assert values["list"]["pagination"]["totalItems"] == 1
    edited = {**link, "tags": ["sdk"], "title": None, "forwardQuery": False}
    assert values["edited"] == edited
    assert values["rules"] == values["rulesRead"]
    (rule,) = values["rules"]["redirectRules"]
    assert rule["conditions"] == [{"type": "device", "matchKey": None, "matchValue": "ios"}]
    for name in ("visits", "tagVisits", "orphans"):
        assert (values[name]["data"], values[name]["pagination"]["pagesCount"]) == ([], 1)
    assert values["domainVisits"]["pagination"] == values["nonOrphans"]["pagination"]
    assert values["overview"]["orphanVisits"] == NO_CLICKS
    assert values["deletedOrphans"] == {"deletedVisits": 0}
    assert "sdk" in values["tags"]["data"]
    assert {"tag": "sdk", "shortUrlsCount": 1, "visitsSummary": NO_CLICKS} in values["tagsStats"]["data"]
    assert values["domains"]["data"][0]["domain"] == "s.example.org"
    assert problems.keys() == {
        "strangerList", "mercure", "again", "invalid", "noTagVisits", "deletedVisits", "redirects", "gone",
    }  # fmt: skip
    kinds = {name: problem["type"].rpartition("/")[2] for name, problem in problems.items()}
    assert kinds == {
        "strangerList": "invalid-api-key",
        "mercure": "mercure-not-configured",
        "again": "non-unique-slug",
        "invalid": "invalid-data",
        "noTagVisits": "tag-not-found",
        "deletedVisits": "urn:snapurl:problem:forbidden",
        "redirects": "invalid-data",
        "gone": "short-url-not-found",
    }
    for problem in problems.values():
        assert problem.keys() >= {"type", "title", "detail", "status"}
    assert problems["again"]["customSlug"] == "sdk__slug"
    assert problems["invalid"]["invalidElements"] == ["longUrl"]


# -- short URLs --------------------------------------------------------------------------------------------------


async def test_a_create_honours_what_it_takes_and_refuses_the_rest(
    service: Service, api: httpx.AsyncClient
) -> None:
    """Fields with a counterpart are honoured, those without are refused by name, and never left out."""
    tag = new_tag()
    link = await create(
        api, longUrl="https://example.org/ä", tags=[tag, f" {tag} "], title="x" * 400, shortCodeLength="9",
        validSince="2026-01-01T00:00:00+01:00", domain="s.example.org", crawlable=False, validateUrl=True,
    )  # fmt: skip
    assert (len(link["shortCode"]), len(link["title"]), link["tags"]) == (9, 300, [tag])
    assert link["longUrl"] == "https://example.org/%C3%A4"
    assert link["meta"] == {"validSince": "2025-12-31T23:00:00+00:00", "validUntil": None, "maxVisits": None}
    assert (link["domain"], link["forwardQuery"]) == (None, True)
    ours = (await api.get(f"/api/v1/links/{link['shortCode']}")).json()
    assert (ours["forward_query"], ours["starts_at"][:19]) == (True, "2025-12-31T23:00:00")
    assert (await create(api, customSlug="my slug/" + tag))["shortCode"] == f"my-slug-{tag}"
    for fields, names in (
        ({"longUrl": "mailto:a@example.org"}, ["longUrl"]),
        ({"longUrl": None}, ["longUrl"]),
        ({"longUrl": 1}, ["longUrl"]),
        ({"longUrl": PUBLIC_URL + "/x"}, ["longUrl"]),
        ({"customSlug": "a.b"}, ["customSlug"]),
        ({"customSlug": "health"}, ["customSlug"]),
        ({"customSlug": "rest"}, ["customSlug"]),
        ({"shortCodeLength": 3}, ["shortCodeLength"]),
        ({"validUntil": "2020-01-01T00:00:00+00:00"}, ["validUntil"]),
        ({"validUntil": "tomorrow"}, ["validUntil"]),
        ({"maxVisits": 1.5}, ["maxVisits"]),
        ({"maxVisits": 0}, ["maxVisits"]),
        ({"tags": ["a"] * 5 + [str(number) for number in range(20)]}, ["tags"]),
        ({"tags": "a"}, ["tags"]),
        ({"crawlable": True}, ["crawlable"]),
        ({"forwardQuery": "maybe"}, ["forwardQuery"]),
        ({"domain": "other.example.org"}, ["domain"]),
        ({"pathPrefix": "a"}, ["pathPrefix"]),
        ({"deviceLongUrls": {"ios": "https://example.org"}}, ["deviceLongUrls"]),
    ):
        assert await refused(api, **fields) == names, fields
    malformed = await api.post(URLS, content=b"{", headers={"content-type": "application/json"})
    assert (malformed.status_code, malformed.json()["type"]) == (400, TYPES + "malformed-request-body")


async def test_find_if_exists_finds_a_link_that_does_the_same(
    service: Service, api: httpx.AsyncClient
) -> None:
    """findIfExists gives the oldest link with that target and those tags, to a key that may read it."""
    url, tag = f"https://example.org/{uuid.uuid4()}", new_tag()
    first, tagged = await create(api, longUrl=url), await create(api, longUrl=url, tags=[tag])
    await create(api, longUrl=url)
    wanted = {"longUrl": url, "findIfExists": True}
    assert (await create(api, **wanted))["shortCode"] == first["shortCode"]
    assert (await create(api, **wanted, tags=[tag]))["shortCode"] == tagged["shortCode"]
    assert (await create(api, **wanted, customSlug=first["shortCode"]))["shortCode"] == first["shortCode"]
    assert (await create(api, **wanted, maxVisits=2))["shortCode"] not in (
        first["shortCode"],
        tagged["shortCode"],
    )
    other = await api.post(URLS, json={**wanted, "longUrl": url + "/x", "customSlug": first["shortCode"]})
    assert other.json()["type"] == TYPES + "non-unique-slug"
    creator = service.client(await service.key("create"))
    assert (await creator.post(URLS, json=wanted)).status_code == 403
    await api.patch(f"/api/v1/links/{tagged['shortCode']}", json={"enabled": False})
    assert (await create(api, **wanted, tags=[tag]))["shortCode"] != tagged["shortCode"]


async def test_an_edit_changes_what_differs(api: httpx.AsyncClient) -> None:
    """A form that is sent back as it was changes nothing, not even an expiry with fractions of seconds."""
    made = await api.post(
        "/api/v1/links",
        json={"url": "https://example.org/", "tags": ["Big", "a b"], "expires_at": "2099-01-01T00:00:00.123Z",
              "max_clicks": 5, "title": "t", "note": "kept"},
    )  # fmt: skip
    code = made.json()["code"]
    path = f"{URLS}/{code}"
    link = (await api.get(path)).json()
    form = {name: link[name] for name in ("longUrl", "tags", "title", "crawlable", "forwardQuery")} | link[
        "meta"
    ]
    assert (await api.patch(path, json={**form, "domain": "other.example.org"})).json() == link
    assert (await api.get(f"/api/v1/links/{code}")).json() == made.json()
    changed = await api.patch(path, json={**form, "title": None, "validUntil": None, "maxVisits": 9})
    assert changed.json()["meta"] == {"validSince": None, "validUntil": None, "maxVisits": 9}
    ours = (await api.get(f"/api/v1/links/{code}")).json()
    assert (ours["title"], ours["note"], ours["version"]) == (None, "kept", 2)
    for fields, names in (
        ({"longUrl": None}, ["longUrl"]),
        ({"crawlable": True}, ["crawlable"]),
        ({"customSlug": "other"}, ["customSlug"]),
        ({"validUntil": "2020-01-01T00:00:00+00:00"}, ["validUntil"]),
    ):
        assert invalid(await api.patch(path, json=fields)) == names, fields
    gone = await api.patch(f"{URLS}/none-{code}", json={"title": "x"})
    assert (gone.status_code, gone.json()["shortCode"]) == (404, f"none-{code}")
    assert (await api.delete(path)).status_code == 204
    taken = await api.post(URLS, json={"longUrl": "https://example.org", "customSlug": code})
    assert (taken.status_code, taken.json()["type"]) == (400, TYPES + "non-unique-slug")


async def test_lists_are_filtered_sorted_and_paged(api: httpx.AsyncClient) -> None:
    """Lists take Shlink's filters and orders, their pages add up, and what lists cannot tell is refused."""
    tag, other = new_tag(), new_tag()
    codes = [
        (await create(api, longUrl=f"https://example.org/{tag}/{n}", tags=[tag]))["shortCode"]
        for n in range(5)
    ]
    await api.patch(f"{URLS}/{codes[0]}", json={"tags": [tag, other], "validUntil": "2099-01-01T00:00:00Z"})
    assert await listed(api, **{"tags[]": tag}) == codes[::-1]
    assert await listed(api, tags=tag, orderBy="dateCreated") == codes
    assert await listed(api, tags=tag, orderBy="shortCode-ASC") == sorted(codes)
    assert len(await listed(api, tags=tag, orderBy="visits-DESC", itemsPerPage=-1)) == 5
    assert await listed(api, searchTerm=f"{tag}/3") == [codes[3]]
    assert await listed(api, **{"tags[]": [tag, other], "tagsMode": "all"}) == [codes[0]]
    assert await listed(api, **{"tags[]": [tag, other]}) == codes[::-1]
    assert codes[0] not in await listed(api, **{"tags[]": tag, "excludeTags[]": other})
    assert await listed(api, tags=tag, startDate="2099-01-01") == []
    assert await listed(api, tags=tag, domain="DEFAULT", startDate="2020-01-01 00:00:00") == codes[::-1]
    assert await listed(api, tags=tag, domain="other.example.org") == []
    pages = [
        (await api.get(URLS, params={"tags[]": tag, "page": page, "itemsPerPage": 2})).json()["shortUrls"]
        for page in (1, 2, 3, 4)
    ]
    assert [link["shortCode"] for page in pages for link in page["data"]] == codes[::-1]
    assert [page["pagination"]["itemsInCurrentPage"] for page in pages] == [2, 2, 1, 0]
    assert {(page["pagination"]["totalItems"], page["pagination"]["pagesCount"]) for page in pages} == {
        (5, 3)
    }
    unexpired: dict[str, Any] = {"tags[]": tag, "itemsPerPage": 2, "excludePastValidUntil": "true"}
    assert (await api.get(URLS, params=unexpired)).json()["shortUrls"]["pagination"]["totalItems"] == 5
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"orderBy": "title-ASC"}, "orderBy"),
        ({"orderBy": "visits-UP"}, "orderBy"),
        ({"excludeMaxVisitsReached": "true"}, "excludeMaxVisitsReached"),
        ({"excludeTags[]": [tag, other], "excludeTagsMode": "all"}, "excludeTagsMode"),
        ({"page": "x"}, "page"),
        ({"startDate": "x"}, "startDate"),
        ({"domain": "a/b"}, "domain"),
        ({"page": "1000", "itemsPerPage": "200"}, "page"),
    ]
    for query, name in refusals:
        assert invalid(await api.get(URLS, params=query)) == [name], query


async def test_old_clients_and_those_of_python(service: Service, api: httpx.AsyncClient) -> None:
    """Version 1 with a form, dates without a zone and `None`; a GET that shortens with the key in the query."""
    form = {
        "longUrl": "https://example.org/form", "tags": ["a", "b"], "validSince": "2026-01-01 00:00:00",
        "validUntil": "None", "maxVisits": "3", "findIfExists": "False", "customSlug": "",
    }  # fmt: skip
    link = (await api.post("/rest/v1/short-urls", data=form)).json()
    assert (link["tags"], link["meta"]["maxVisits"]) == (["a", "b"], 3)
    assert link["meta"]["validSince"] == "2026-01-01T00:00:00+00:00"
    datetime.strptime(link["dateCreated"], "%Y-%m-%dT%H:%M:%S%z")
    stranger = service.client()
    query = {"longUrl": "https://example.org/get", "apiKey": service.admin_key, "format": "txt"}
    text = await stranger.get("/rest/v2/short-urls/shorten", params=query)
    assert (text.status_code, text.text.startswith(PUBLIC_URL + "/")) == (200, True)
    assert (await stranger.get("/rest/v2/short-urls/shorten", params={"longUrl": "x"})).json()[
        "param"
    ] == "apiKey"
    log = service.workers[0].log.read_text()
    assert service.admin_key not in log


# -- visits ------------------------------------------------------------------------------------------------------


async def test_visits_are_made_from_counts(service: Service, api: httpx.AsyncClient) -> None:
    """A list of visits has as many of each hour, browser, referrer and place as were counted, newest first."""
    tag = new_tag()
    code = (await create(api, tags=[tag]))["shortCode"]
    await count(service, code)
    answer = await api.get(f"{URLS}/{code}/visits", params={**DAY, "page": 1, "itemsPerPage": 5000})
    found = answer.json()["visits"]
    visits: list[dict[str, Any]] = found["data"]
    assert found["pagination"]["totalItems"] == 8
    assert [visit["date"] for visit in visits] == ["2026-05-05T00:00:00+00:00"] * 2 + [
        "2026-05-04T23:00:00+00:00"
    ] * 6
    assert Counter(visit["referer"] for visit in visits) == {"news.example.org": 4, "": 4}
    assert Counter(visit["potentialBot"] for visit in visits) == {True: 2, False: 6}
    agents = Counter(visit["userAgent"] for visit in visits)
    assert agents == {"Mozilla/5.0 Firefox/120.0": 3, "": 3, "bot": 2}
    places = Counter(place(visit) for visit in visits)
    assert places == {("FR", "Paris"): 1, ("FR", None): 2, None: 5}
    parts = [
        visit
        for page in (1, 2, 3)
        for visit in (
            await api.get(f"{URLS}/{code}/visits", params={**DAY, "page": page, "itemsPerPage": 3})
        ).json()["visits"]["data"]
    ]
    assert parts == visits
    people = await api.get(f"{URLS}/{code}/visits", params={**DAY, "excludeBots": "true"})
    assert [visit["potentialBot"] for visit in people.json()["visits"]["data"]] == [False] * 6
    evening = {"startDate": "2026-05-05T00:00:00+01:00", "endDate": "2026-05-05T00:59:59+01:00"}
    assert (await api.get(f"{URLS}/{code}/visits", params=evening)).json()["visits"]["pagination"][
        "totalItems"
    ] == 6
    always = (await api.get(f"{URLS}/{code}/visits", params={"itemsPerPage": 1})).json()["visits"]
    assert (always["data"][0]["date"], always["pagination"]["pagesCount"]) == ("2026-05-05T12:00:00+00:00", 8)
    counted = {"total": 8, "nonBots": 6, "bots": 2}
    assert (await api.get(f"{URLS}/{code}")).json()["visitsSummary"] == counted
    assert await listed(api, tags=tag, orderBy="visits-DESC") == [code]
    refusal = await api.delete(f"{URLS}/{code}/visits")
    assert (refusal.status_code, "detail" in refusal.json()) == (403, True)
    missing = await api.get(f"{URLS}/none-{code}/visits")
    assert (missing.status_code, missing.json()["type"]) == (404, TYPES + "short-url-not-found")


def place(visit: Mapping[str, Any]) -> tuple[str, str | None] | None:
    location = visit["visitLocation"]
    return None if location is None else (location["countryCode"], location["cityName"])


# -- rules, tags, domains ----------------------------------------------------------------------------------------


async def test_rules_are_translated_or_refused(api: httpx.AsyncClient) -> None:
    """Rules go to and fro unchanged; conditions that only one side has are refused, and never overwritten."""
    code = (await create(api))["shortCode"]
    path = f"{URLS}/{code}/redirect-rules"
    given = [
        ("device", None, "mobile"),
        ("language", None, "de"),
        ("query-param", "a", "1"),
        ("any-value-query-param", "b", None),
        ("browser", None, "firefox"),
        ("after-date", None, "2026-01-01T00:00:00+00:00"),
        ("before-date", None, "2027-01-01T00:00:00+00:00"),
    ]
    conditions = [{"type": kind, "matchKey": key, "matchValue": value} for kind, key, value in given]
    body = {"redirectRules": [{"longUrl": "https://example.org/m", "conditions": conditions}]}
    written = (await api.post(path, json=body)).json()
    assert written["defaultLongUrl"] == "https://example.org/"
    (rule,) = written["redirectRules"]
    assert sorted(rule["conditions"], key=str) == sorted(conditions, key=str)
    assert (await api.get(f"{URLS}/{code}")).json()["hasRedirectRules"] is True
    for kind in ("ip-address", "geolocation-country-code", "valueless-query-param"):
        bad = {
            "longUrl": "https://example.org/m",
            "conditions": [{"type": kind, "matchKey": "a", "matchValue": "b"}],
        }
        assert invalid(await api.post(path, json={"redirectRules": [bad]})) == ["redirectRules"]
    assert (await api.get(path)).json() == written
    assert (await api.post(path, json={"redirectRules": []})).json()["redirectRules"] == []
    ours = [{"if": {"percentage": 50}, "url": "https://example.org/half"}]
    await api.patch(f"/api/v1/links/{code}", json={"rules": ours})
    assert (
        (await api.get(path)).status_code
        == (await api.post(path, json={"redirectRules": []})).status_code
        == 409
    )
    assert (await api.get(f"/api/v1/links/{code}")).json()["rules"] == ours


async def test_tags_are_counted_renamed_and_deleted(service: Service, api: httpx.AsyncClient) -> None:
    """Tags have links and clicks; a rename to one that exists is a conflict; a key changes its own links alone."""
    tag, new = new_tag(), new_tag()
    mine = service.client(await service.key("create", "read", "change"))
    code = (await create(mine, tags=[tag]))["shortCode"]
    others = (await create(api, tags=[tag]))["shortCode"]
    await count(service, code)
    stats = (await api.get("/rest/v3/tags/stats", params={"searchTerm": tag.upper()})).json()["tags"]["data"]
    assert [(item["tag"], item["shortUrlsCount"]) for item in stats] == [(tag, 2)]
    assert (await mine.get(f"/rest/v3/tags/{tag}/visits")).json()["visits"]["pagination"]["totalItems"] in (
        0,
        8,
    )
    rename = {"oldName": tag, "newName": new}
    assert (await mine.put("/rest/v3/tags", json=rename)).status_code == 204
    assert (
        (await mine.get(f"{URLS}/{code}")).json()["tags"],
        (await api.get(f"{URLS}/{others}")).json()["tags"],
    ) == (
        [new],
        [tag],
    )
    conflict = await api.put("/rest/v3/tags", json=rename)
    assert (conflict.status_code, conflict.json()["type"]) == (409, TYPES + "tag-conflict")
    missing = await mine.put("/rest/v3/tags", json=rename)
    assert (missing.status_code, missing.json()["tag"]) == (404, tag)
    assert invalid(await api.put("/rest/v3/tags", json={"oldName": tag})) == ["newName"]
    assert (await api.delete("/rest/v3/tags", params={"tags[]": [tag, new]})).status_code == 204
    assert (await mine.get("/rest/v3/tags")).json()["tags"]["data"] == []


async def test_what_keys_may_do(service: Service, api: httpx.AsyncClient) -> None:
    """Without a key, with a wrong one or without the right: problems that any origin may read; health takes all."""
    mine = service.client(await service.key("create", "read"))
    stranger, wrong = service.client(), service.client("snap_0123456789_" + "x" * 32)
    code = (await create(api))["shortCode"]
    answers = {
        "missing-authentication": await stranger.get(URLS),
        "invalid-api-key": await wrong.get(URLS),
        "urn:snapurl:problem:forbidden": await mine.delete(f"{URLS}/{code}"),
        "short-url-not-found": await mine.get(f"{URLS}/{code}"),
        "not-found": await api.get("/rest/v3/nothing"),
        "urn:snapurl:problem:method-not-allowed": await api.put(URLS),
    }
    for kind, answer in answers.items():
        assert answer.json()["type"] in (kind, TYPES + kind)
        assert answer.headers["access-control-allow-origin"] == "*"
    assert answers["missing-authentication"].json()["expectedHeaders"] == ["X-Api-Key"]
    assert (await mine.get("/rest/v3/domains/DEFAULT/visits")).status_code == 403
    assert (await api.get("/rest/v3/domains/other.example.org/visits")).json()[
        "authority"
    ] == "other.example.org"
    for path in ("/rest/health", "/rest/v1/health", "//rest/v3/health", "///rest/v3/health"):
        answer = await wrong.get(httpx.URL(service.workers[0].url).copy_with(raw_path=path.encode()))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/health+json"), path
    preflight = await stranger.options(
        f"{URLS}/{code}",
        headers={"Origin": "https://a.example.org", "Access-Control-Request-Headers": "x-api-key"},
    )
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-methods"] == "GET, PATCH, DELETE"
    assert preflight.headers["access-control-allow-headers"] == "x-api-key"


async def test_other_domains_have_their_ports(make_service: ServiceMaker) -> None:
    """A link names another domain as Shlink does, with the port, and is found under it; origins can be limited."""
    async with make_service(
        SNAPURL_SHLINK_API="true",
        SNAPURL_BASE_URL="http://s.example.org:8080",
        SNAPURL_DOMAINS="go.example.org",
        SNAPURL_CORS_ORIGINS="https://app.example.org",
    ) as service:
        api = service.api
        link = await create(api, customSlug="there", domain="go.example.org:8080")
        assert (link["domain"], link["shortUrl"]) == (
            "go.example.org:8080",
            "http://go.example.org:8080/there",
        )
        assert (await create(api, customSlug="there", domain="s.example.org:8080"))["domain"] is None
        assert (await api.get(f"{URLS}/there", params={"domain": link["domain"]})).json() == link
        assert len(await listed(api, domain=link["domain"])) == 1
        taken = await api.post(
            URLS, json={"longUrl": "https://example.org", "customSlug": "there", "domain": "go.example.org"}
        )
        assert (taken.json()["customSlug"], taken.json()["domain"]) == ("there", "go.example.org")
        domains = (await api.get("/rest/v3/domains")).json()["domains"]["data"]
        assert [(each["domain"], each["isDefault"]) for each in domains] == [
            ("s.example.org:8080", True),
            ("go.example.org:8080", False),
        ]
        allowed, other = (service.client(Origin=f"https://{name}.example.org") for name in ("app", "other"))
        assert (await allowed.get(URLS)).headers["access-control-allow-origin"] == "https://app.example.org"
        assert "access-control-allow-origin" not in (await other.get(URLS)).headers


@pytest.mark.parametrize("moment", ["2026-05-04T23:30:00.5+02:00", "2026-05-04 21:30", "2026-05-04"])
def test_dates_are_read_with_and_without_a_zone(moment: str) -> None:
    """A date, or a date and time, is UTC unless it has an offset."""
    from snapurl.http.shlink.call import read_date  # noqa: PLC0415 - the package may be missing

    assert read_date("startDate", moment).date() == datetime(2026, 5, 4, tzinfo=UTC).date()
