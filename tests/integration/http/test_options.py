"""Options of links over HTTP: switched off, not yet, elsewhere after the expiry, and who wrote them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.integration.http.service import Service
from tests.support.waits import until

OVER = "https://example.org/over"
URN = "urn:snapurl:problem:"


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_link_is_switched_off_and_on_again(service: Service, api: httpx.AsyncClient) -> None:
    """A link that is switched off answers 404 in words of its own at every worker, keeps its data, and can return."""
    link = await service.shorten(title="kept")
    path = f"/api/v1/links/{link['code']}"
    one, other = service.clients[:2]
    for enabled, status in ((False, 404), (True, 302)):
        changed = await api.patch(path, json={"enabled": enabled})
        assert (changed.json()["enabled"], changed.json()["title"]) == (enabled, "kept")

        async def has_changed(status: int = status) -> bool:
            return (await other.get(f"/{link['code']}")).status_code == status

        await until(has_changed)
        answer = await one.get(f"/{link['code']}")
        assert answer.status_code == status
        assert enabled or answer.json()["type"] == URN + "switched-off"
    assert (await api.get(path)).json()["version"] == 3


async def test_a_link_that_is_switched_off_is_no_miss(service: Service) -> None:
    """Whoever opens links that are switched off or do not work yet is not blocked for guessing codes."""
    off = await service.shorten(enabled=False)
    late = await service.shorten(starts_at=soon(86_400))
    visitor = service.client()
    for _ in range(100):
        answers = [await visitor.get(f"/{link['code']}") for link in (off, late)]
        assert [answer.json()["type"] for answer in answers] == [URN + "switched-off", URN + "not-yet"]


async def test_an_expired_link_leads_elsewhere_if_it_says_so(service: Service, api: httpx.AsyncClient) -> None:
    """From its expiry on a link redirects to `expired_url` with its status; without one it answers 410."""
    link = await service.shorten(expires_at=soon(0.3), expired_url=OVER, redirect_status=307)
    await asyncio.sleep(0.3)
    answer = await api.post(f"/{link['code']}")
    assert (answer.status_code, answer.headers["location"]) == (307, OVER)
    assert (await api.patch(f"/api/v1/links/{link['code']}", json={"expired_url": None})).status_code == 200
    assert (await api.get(f"/{link['code']}")).status_code == 410


async def test_a_link_names_the_keys_that_wrote_it(service: Service) -> None:
    """A link shows which key made it and which changed it last, also in a list and if an admin changed it."""
    key = await service.key("create", "read")
    async with service.client(key) as mine:
        link = (await mine.post("/api/v1/links", json={"url": "https://example.org/"})).json()
        bulk = await mine.post("/api/v1/links/bulk", json={"links": [{"url": "https://example.org/", "note": "n"}]})
        key_id, admin_id = key.split("_")[1], service.admin_key.split("_")[1]
        assert (link["created_by"], link["changed_by"]) == (key_id, None)
        noted = bulk.json()["results"][0]["link"]
        assert (noted["created_by"], noted["note"]) == (key_id, "n")
        changed = await service.api.patch(f"/api/v1/links/{link['code']}", json={"note": "by an admin"})
        assert (changed.json()["created_by"], changed.json()["changed_by"]) == (key_id, admin_id)
        assert changed.json() in (await mine.get("/api/v1/links")).json()["links"]


async def test_a_link_forwards_query_and_path(service: Service, api: httpx.AsyncClient) -> None:
    """`utm_source` of the short URL wins over the target's; a path reaches the target, unless the link forwards none."""
    link = await service.shorten("https://example.org/a?utm_source=x&y=1", forward_query=True)
    path = f"/{link['code']}"
    assert (await api.get(f"{path}?utm_source=mail")).headers["location"] == "https://example.org/a?y=1&utm_source=mail"
    refused = await api.get(f"{path}/b")
    assert (refused.status_code, refused.json()["type"]) == (404, URN + "no-such-address")
    await api.patch(f"/api/v1/links/{link['code']}", json={"forward_query": False, "forward_path": True})
    deeper = await api.get(f"{path}/b/c?utm_source=mail")
    assert (deeper.status_code, deeper.headers["location"]) == (302, "https://example.org/a/b/c?utm_source=x&y=1")
    upwards = await service.workers[0].say(
        f"GET {path}/..%2Fx HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    )
    assert upwards.startswith(b"HTTP/1.1 400 ")


async def test_a_link_redirects_as_often_as_it_may(service: Service, api: httpx.AsyncClient) -> None:
    """A link is used up after `max_clicks` visits over all workers; whoever only looks, prefetches or previews uses none."""
    link = await service.shorten(max_clicks=3)
    path = f"/{link['code']}"
    one, other = service.clients[:2]
    for _ in range(3):
        assert (await one.head(path)).status_code == 302
        for headers in ({"Sec-Purpose": "prefetch"}, {"User-Agent": "Twitterbot/1.0"}):
            assert (await one.get(path, headers=headers)).status_code == 302
    visits = await asyncio.gather(*(client.get(path) for client in (one, other) * 5))
    assert sorted(visit.status_code for visit in visits) == [302] * 3 + [410] * 7
    assert (await one.head(path)).status_code == 410
    await api.patch(f"/api/v1/links/{link['code']}", json={"expired_url": OVER})
    assert (await other.get(path)).headers["location"] == OVER
    await api.patch(f"/api/v1/links/{link['code']}", json={"max_clicks": 4})
    assert [(await client.get(path)).headers["location"] for client in (other, one)] == ["https://example.org/", OVER]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"enabled": 1}, "/enabled"),
        ({"enabled": None}, "/enabled"),
        ({"starts_at": "tomorrow"}, "/starts_at"),
        ({"expired_url": "https://s.example.org/x"}, "/expired_url"),
        ({"expired_url": "javascript:alert(1)"}, "/expired_url"),
        ({"note": "x" * 2_001}, "/note"),
        ({"note": "\x00"}, "/note"),
        ({"forward_query": "yes"}, "/forward_query"),
        ({"forward_path": None}, "/forward_path"),
        ({"max_clicks": 0}, "/max_clicks"),
        ({"max_clicks": 1.5}, "/max_clicks"),
        ({"max_clicks": 10**10}, "/max_clicks"),
        ({"created_by": "me"}, "/created_by"),
    ],
)
async def test_an_option_of_the_wrong_kind_is_refused(
    service: Service, api: httpx.AsyncClient, fields: dict[str, object], pointer: str
) -> None:
    """A create and a change refuse a wrong option, and point at it."""
    link = await service.shorten()
    for answer in (
        await api.post("/api/v1/links", json={"url": "https://example.org/", **fields}),
        await api.patch(f"/api/v1/links/{link['code']}", json=fields),
    ):
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
