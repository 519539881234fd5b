"""Create, read, change, delete and list links over the API."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.integration.http.service import PUBLIC_URL, Service


def alias() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


async def test_a_link_is_created_with_everything_asked_for(service: Service, api: httpx.AsyncClient) -> None:
    """A create returns 201 with the whole link, its URL, and its version as an ETag."""
    name = alias()
    expires = datetime.now(UTC) + timedelta(days=1)
    body = {
        "url": "https://example.org/a?b=c#d",
        "alias": name,
        "title": "Ä title",
        "tags": ["one", "two"],
        "redirect_status": 307,
        "expires_at": expires.isoformat(),
        "enabled": False,
        "starts_at": "2020-01-31T13:00:00+01:00",
        "expired_url": "https://example.org/over",
        "note": "Two\n\tlines",
        "forward_query": True,
        "forward_path": True,
        "max_clicks": 100,
        "password": "open sesame",
        "rules": [{"if": {"device": ["mobile"], "percentage": 50}, "url": "https://example.org/m"}],
    }
    answer = await api.post("/api/v1/links", json=body)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/links/{name}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["content-type"] == "application/json"
    link = answer.json()
    created = datetime.fromisoformat(link.pop("created_at"))
    assert abs(created - datetime.now(UTC)) < timedelta(minutes=1)
    assert datetime.fromisoformat(link.pop("expires_at")) == expires
    assert link == {
        "code": name,
        "domain": None,
        "domain_is_configured": True,
        "short_url": f"{PUBLIC_URL}/{name}",
        "url": "https://example.org/a?b=c#d",
        "title": "Ä title",
        "tags": ["one", "two"],
        "redirect_status": 307,
        "enabled": False,
        "starts_at": "2020-01-31T12:00:00.000000Z",
        "expired_url": "https://example.org/over",
        "note": "Two\n\tlines",
        "forward_query": True,
        "forward_path": True,
        "max_clicks": 100,
        "has_password": True,
        "rules": [{"if": {"device": ["mobile"], "percentage": 50}, "url": "https://example.org/m"}],
        "account": service.admin_key.split("_")[1],
        "created_by": service.admin_key.split("_")[1],
        "changed_by": None,
        "clicks": 0,
        "imported_clicks": None,
        "version": 1,
        "changed_at": None,
        "deleted_at": None,
        "renamed_to": None,
    }
    assert (await api.get(answer.headers["location"])).json() == answer.json()


async def test_a_code_is_made_up_where_none_is_asked_for(api: httpx.AsyncClient) -> None:
    """A create without an alias gets a code of seven base-62 characters, different each time."""
    answers = [await api.post("/api/v1/links", json={"url": "https://example.org/"}) for _ in range(3)]
    codes = {answer.json()["code"] for answer in answers}
    assert len(codes) == 3
    assert all(re.fullmatch(r"[0-9A-Za-z]{7}", code) for code in codes)


async def test_a_taken_alias_is_409_for_ever(api: httpx.AsyncClient) -> None:
    """A taken alias gets 409, also after its link was deleted: a code is never reused."""
    name = alias()
    body = {"url": "https://example.org/", "alias": name}
    assert (await api.post("/api/v1/links", json=body)).status_code == 201
    for _ in range(2):
        again = await api.post("/api/v1/links", json=body)
        assert again.status_code == 409
        assert again.json()["type"] == "urn:snapurl:problem:alias-taken"
        await api.delete(f"/api/v1/links/{name}")
    other_case = await api.post("/api/v1/links", json={**body, "alias": name.upper()})
    assert other_case.status_code == 201


async def test_two_workers_race_for_one_alias_500_times(service: Service) -> None:
    """Exactly one of two concurrent creates gets the alias, and the link has that one's URL."""
    one, other = service.clients[0], service.clients[1]
    for number in range(500):
        name = f"race-{uuid.uuid4().hex[:10]}"
        answers = await asyncio.gather(
            one.post("/api/v1/links", json={"url": f"https://one.example/{number}", "alias": name}),
            other.post("/api/v1/links", json={"url": f"https://other.example/{number}", "alias": name}),
        )
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        winner = next(answer.json() for answer in answers if answer.status_code == 201)
        loser_sees = await (other if answers[0].status_code == 201 else one).get(f"/api/v1/links/{name}")
        assert loser_sees.json() == winner


async def test_a_change_sets_what_it_names_and_leaves_the_rest(
    service: Service, api: httpx.AsyncClient
) -> None:
    """PATCH changes only the given fields (null clears one) and returns the whole link with the next version."""
    link = await service.shorten(alias=alias(), title="old", tags=["a"])
    path = f"/api/v1/links/{link['code']}"
    changed = await api.patch(path, json={"url": "https://example.com/new", "title": None})
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    by = {"changed_by": service.admin_key.split("_")[1]}
    at = {"changed_at": changed.json()["changed_at"]}
    assert at["changed_at"] > link["created_at"]
    assert changed.json() == {
        **link,
        "url": "https://example.com/new",
        "title": None,
        "version": 2,
        **by,
        **at,
    }
    expires = "2099-01-01T00:00:00.000000Z"
    assert (await api.patch(path, json={"expires_at": expires})).json()["expires_at"] == expires
    cleared = await api.patch(path, json={"expires_at": None, "tags": ["b", "c"], "redirect_status": 308})
    assert cleared.json() == {
        **changed.json(),
        "tags": ["b", "c"],
        "redirect_status": 308,
        "version": 4,
        "changed_at": cleared.json()["changed_at"],
    }
    assert (await api.get(path)).json() == cleared.json()


@pytest.mark.parametrize("if_match", ['"1"', "1", "*", None])
async def test_a_change_goes_through_if_the_version_is_right(
    service: Service, api: httpx.AsyncClient, if_match: str | None
) -> None:
    """A change succeeds if If-Match has the version, with or without quotes; `*` or no header match any version."""
    link = await service.shorten()
    headers = {"If-Match": if_match} if if_match else {}
    answer = await api.patch(f"/api/v1/links/{link['code']}", json={"title": "x"}, headers=headers)
    assert answer.status_code == 200


async def test_a_change_of_another_version_is_412_and_changes_nothing(
    service: Service, api: httpx.AsyncClient
) -> None:
    """PATCH and DELETE with another version get 412 and change nothing."""
    link = await service.shorten()
    path = f"/api/v1/links/{link['code']}"
    for answer in (
        await api.patch(path, json={"title": "x"}, headers={"If-Match": '"2"'}),
        await api.delete(path, headers={"If-Match": '"999999999999999999"'}),
    ):
        assert answer.status_code == 412
        assert answer.json()["type"] == "urn:snapurl:problem:version-mismatch"
    assert (await api.get(path)).json() == link


@pytest.mark.parametrize("if_match", ["", "abc", '"1', 'W/"1"', '"1", "2"', "0", "-1", "1" * 19, "1.0"])
async def test_an_if_match_that_is_no_version_is_refused(
    service: Service, api: httpx.AsyncClient, if_match: str
) -> None:
    """An If-Match that is not a version is refused, not treated as any version."""
    link = await service.shorten()
    answer = await api.delete(f"/api/v1/links/{link['code']}", headers={"If-Match": if_match})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/headers/if-match"


async def test_of_two_changes_of_one_version_one_wins(service: Service) -> None:
    """Of two concurrent changes to version 1 one succeeds, so no update is lost."""
    link = await service.shorten()
    answers = await asyncio.gather(
        *(
            client.patch(
                f"/api/v1/links/{link['code']}", json={"title": str(number)}, headers={"If-Match": '"1"'}
            )
            for number, client in enumerate(service.clients[:2])
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412]


async def test_a_deleted_link_is_gone(service: Service, api: httpx.AsyncClient) -> None:
    """DELETE returns 204 once; then every request for the link gets 410, and the list omits it."""
    link = await service.shorten()
    path = f"/api/v1/links/{link['code']}"
    answer = await api.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for again in (
        await api.get(path),
        await api.patch(path, json={"title": "x"}),
        await api.delete(path),
        await api.get(f"/{link['code']}"),
    ):
        assert again.status_code == 410
        assert again.json()["type"] == "urn:snapurl:problem:gone"
    assert link["code"] not in [item["code"] for item in (await api.get("/api/v1/links")).json()["links"]]


async def test_an_expired_link_keeps_its_data(service: Service, api: httpx.AsyncClient) -> None:
    """The redirect of an expired link is 410, while the API still shows the link and can extend it."""
    code = (await service.shorten())["code"]
    assert (await api.get(f"/{code}")).status_code == 302
    link = await service.expire(code)
    assert (await api.get(f"/{code}")).status_code == 410
    assert (await api.get(f"/api/v1/links/{code}")).json() == link
    assert (await api.get(f"/api/v1/links/{code}/stats")).status_code == 200
    prolonged = await api.patch(f"/api/v1/links/{code}", json={"expires_at": None})
    assert prolonged.status_code == 200
    assert (await api.get(f"/{code}")).status_code == 302


async def test_codes_that_nobody_has_are_404(api: httpx.AsyncClient) -> None:
    """An unused code gets 404, whether or not it is well-formed."""
    for code in ("nobody-has-this", "a.b", "x" * 65, "%00", "%2e%2e", "ä", "a%20b"):
        for answer in (
            await api.get(f"/api/v1/links/{code}"),
            await api.get(f"/api/v1/links/{code}/stats"),
            await api.delete(f"/api/v1/links/{code}"),
            await api.get(f"/{code}"),
        ):
            assert answer.status_code == 404, code
            assert answer.headers["content-type"] == "application/problem+json"


# -- the list ----------------------------------------------------------------------------------------------------


async def everything(client: httpx.AsyncClient, limit: int) -> list[dict[str, Any]]:
    """Returns all links by following cursors. Asserts that the Link header agrees with the body."""
    found: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": str(limit)}
    while True:
        answer = await client.get("/api/v1/links", params=query)
        assert answer.status_code == 200
        page = answer.json()
        found += page["links"]
        if page["next_cursor"] is None:
            assert "link" not in answer.headers
            return found
        assert len(page["links"]) == limit
        assert f"cursor={page['next_cursor']}" in answer.headers["link"]
        assert answer.headers["link"].endswith('; rel="next"')
        query["cursor"] = page["next_cursor"]


async def test_pages_hold_each_link_once_newest_first(service: Service) -> None:
    """Pages over all shards have each link once, newest first, also while others create links."""
    key = await service.key("create", "read")
    client = service.client(key)
    made = []
    for number in range(23):
        answer = await client.post("/api/v1/links", json={"url": f"https://example.org/{number}"})
        made.append(answer.json())

    async def create_more() -> None:
        for _ in range(20):
            await client.post("/api/v1/links", json={"url": "https://example.org/more"})

    more = asyncio.create_task(create_more())
    pages = await asyncio.gather(*(everything(client, limit) for limit in (1, 5, 23, 200)))
    await more
    for found in pages:
        codes = [link["code"] for link in found]
        assert len(set(codes)) == len(codes)
        keys = [(link["created_at"], link["code"]) for link in found]
        assert keys == sorted(keys, reverse=True)
        assert [link for link in found if link in made] == made[::-1]


async def test_a_key_lists_its_own_links_and_an_admin_key_all(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A key lists only its own links, an admin key all."""
    mine = service.client(await service.key("create", "read"))
    code = (await mine.post("/api/v1/links", json={"url": "https://example.org/"})).json()["code"]
    other = await service.shorten()
    assert [link["code"] for link in await everything(mine, 50)] == [code]
    codes = [link["code"] for link in (await api.get("/api/v1/links")).json()["links"]]
    assert {code, other["code"]} <= set(codes)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=201", "/query/limit"),
        ("limit=", "/query/limit"),
        ("limit=ten", "/query/limit"),
        ("limit=1.0", "/query/limit"),
        ("limit=-1", "/query/limit"),
        ("limit=%D9%A1", "/query/limit"),
        ("limit=1&limit=2", "/query/limit"),
        ("cursor=", "/query/cursor"),
        ("cursor=xyz", "/query/cursor"),
        ("cursor=" + "A" * 900, "/query/cursor"),
        ("page=2", "/query/page"),
        ("q=", "/query/q"),
        ("q=%20", "/query/q"),
        ("q=%00", "/query/q"),
        ("q=" + "a" * 201, "/query/q"),
        ("q=a&q=b", "/query/q"),
        ("tags_any=", "/query/tags_any"),
        ("tags_none=a&tags_none=" + "b" * 51, "/query/tags_none"),
        ("state=gone", "/query/state"),
        ("sort=clicks_", "/query/sort"),
        ("order=up", "/query/order"),
        ("created_from=2030-01-01", "/query/created_from"),
        ("expires_to=2030-01-01T00:00:00", "/query/expires_to"),
        ("total=1", "/query/total"),
        ("strict=yes", "/query/strict"),
        ("Limit=5", "/query/Limit"),
    ],
)
async def test_a_bad_query_is_422_and_points_at_the_parameter(
    api: httpx.AsyncClient, query: str, pointer: str
) -> None:
    """A bad limit, a bad cursor, and an unknown or repeated parameter get 422 with the parameter's name."""
    answer = await api.get(f"/api/v1/links?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_links_are_found_by_what_is_remembered_of_them(service: Service) -> None:
    """A link is found by a word of its target and by its tags; the pages of a search go on with its cursor only."""
    own = service.client(await service.key("create", "read", "change"))
    for n in range(5):
        tags = ["odd", "all"] if n % 2 else ["all"]
        made = await own.post(
            "/api/v1/links",
            json={"url": f"https://example.org/Needle/{n}", "alias": f"find-{n}", "tags": tags},
        )
        assert made.status_code == 201

    async def find(**query: Any) -> dict[str, Any]:
        answer = await own.get("/api/v1/links", params=query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body | {"links": [link["code"] for link in body["links"]], "next": answer.headers.get("link")}

    found = await find(q="needle", sort="code", order="asc", limit=2, tags_any=["odd", "all"], total="true")
    assert found["links"] == ["find-0", "find-1"]
    assert (found["total"], found["total_is_estimate"], found["partial"]) == (5, False, None)
    address = found["next"].partition(">")[0].removeprefix("<")
    more = (await own.get(address)).json()
    assert [link["code"] for link in more["links"]] == ["find-2", "find-3"]
    assert (await find(tags_all=["odd", "all"], sort="code"))["links"] == ["find-3", "find-1"]
    assert (await find(tags_none=["odd"], sort="code"))["links"] == ["find-4", "find-2", "find-0"]
    assert (await find(q="find-3", total="true"))["total"] == 1
    other = await own.get("/api/v1/links", params={"q": "other", "cursor": found["next_cursor"]})
    assert other.status_code == 422
    assert other.json()["errors"][0]["pointer"] == "/query/cursor"
    await own.delete("/api/v1/links/find-3")
    deleted = (await own.get("/api/v1/links", params={"state": "deleted"})).json()["links"]
    assert [link["code"] for link in deleted] == ["find-3"]
    assert deleted[0]["deleted_at"] is not None
    assert (await find(q="find-", account="someone-else"))["links"] == []


async def test_stats_of_a_link_without_clicks(service: Service, api: httpx.AsyncClient) -> None:
    """A link without clicks has a count of zero and no days."""
    link = await service.shorten()
    answer = await api.get(f"/api/v1/links/{link['code']}/stats")
    assert answer.json() == {
        "code": link["code"],
        "domain": None,
        "from": None,
        "to": None,
        "months": [],
        "interval": "day",
        "tz": "UTC",
        "clicks": 0,
        "bots": 0,
        "visitors": None,
        "series": [],
        "previous": None,
        "imported": {"clicks": 0, "bots": 0, "series": []},
        "days": [],
        "referrers": [],
        "browsers": [],
    }


async def test_the_ring_shows_who_holds_what(service: Service) -> None:
    """The ring is for admins and has no addresses; the shares of the shards add up to all slots."""
    assert (await service.client().get("/api/v1/ring")).status_code == 401
    reader = service.client(await service.key("create", "read", "change"))
    assert (await reader.get("/api/v1/ring")).status_code == 403
    answer = await service.api.get("/api/v1/ring")
    assert answer.status_code == 200
    ring = answer.json()
    assert [shard["name"] for shard in ring["shards"]] == ["db0", "db1", "db2", "db3"]
    assert sum(shard["slots"] for shard in ring["shards"]) == ring["slots"] == 16_384
    assert abs(sum(shard["share"] for shard in ring["shards"]) - 1) < 1e-4
    assert (ring["topology_version"], ring["slots_in_hand_off"], ring["slots_unknown"]) == (1, 0, 0)
    assert "127.0.0.1" not in answer.text and "postgres" not in answer.text


async def test_the_ring_as_arcs_adds_up_to_the_ring(service: Service) -> None:
    """The ring comes in as many arcs as asked for, whose slots add up to the shards'; other numbers are refused."""
    ring = (await service.api.get("/api/v1/ring", params={"arcs": "256"})).json()
    assert [arc["first_slot"] for arc in ring["arcs"]] == list(range(0, 16_384, 64))
    for shard in ring["shards"]:
        assert sum(arc["owners"].get(shard["name"], 0) for arc in ring["arcs"]) == shard["slots"]
    assert not any(arc["in_hand_off"] or arc["unknown"] or arc["misplaced"] for arc in ring["arcs"])
    assert (await service.api.get("/api/v1/ring")).json()["arcs"] is None
    for count in ("0", "100", "2048", "256.0", " 256", "-64", ""):
        answer = await service.api.get("/api/v1/ring", params={"arcs": count})
        assert answer.status_code == 422, count
        assert answer.json()["errors"][0]["pointer"] == "/query/arcs"
