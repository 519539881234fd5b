"""Options of links over HTTP: switched off, not yet, elsewhere after the expiry, and who wrote them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from snapurl.links import PASSWORDS_MAX
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.support.waits import until

OVER = "https://example.org/over"
URN = "urn:snapurl:problem:"


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def leads(client: httpx.AsyncClient, path: str, target: str) -> bool:
    """Returns whether a redirect leads to `target`: a change is known to the other workers a moment later."""
    answer = await client.get(path)
    return bool(answer.headers.get("location") == target)


async def test_a_link_is_switched_off_and_on_again(service: Service, api: httpx.AsyncClient) -> None:
    """A link that is switched off answers 404 in words of its own at every worker, keeps its data, and can
    return."""
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


async def test_an_expired_link_leads_elsewhere_if_it_says_so(
    service: Service, api: httpx.AsyncClient
) -> None:
    """From its expiry on a link redirects to `expired_url` with its status; without one it answers 410."""
    link = await service.shorten(expires_at=soon(86_400), expired_url=OVER, redirect_status=307)
    await service.expire(link["code"])
    answer = await api.post(f"/{link['code']}")
    assert (answer.status_code, answer.headers["location"]) == (307, OVER)
    assert (await api.patch(f"/api/v1/links/{link['code']}", json={"expired_url": None})).status_code == 200
    assert (await api.get(f"/{link['code']}")).status_code == 410


async def test_a_link_names_the_keys_that_wrote_it(service: Service) -> None:
    """A link shows which key made it and which changed it last, also in a list and if an admin changed it."""
    key = await service.key("create", "read")
    async with service.client(key) as mine:
        link = (await mine.post("/api/v1/links", json={"url": "https://example.org/"})).json()
        bulk = await mine.post(
            "/api/v1/links/bulk", json={"links": [{"url": "https://example.org/", "note": "n"}]}
        )
        key_id, admin_id = key.split("_")[1], service.admin_key.split("_")[1]
        assert (link["created_by"], link["changed_by"]) == (key_id, None)
        noted = bulk.json()["results"][0]["link"]
        assert (noted["created_by"], noted["note"]) == (key_id, "n")
        changed = await service.api.patch(f"/api/v1/links/{link['code']}", json={"note": "by an admin"})
        assert (changed.json()["created_by"], changed.json()["changed_by"]) == (key_id, admin_id)
        assert changed.json() in (await mine.get("/api/v1/links")).json()["links"]


async def test_a_link_forwards_query_and_path(service: Service, api: httpx.AsyncClient) -> None:
    """`utm_source` of the short URL wins over the target's; a path reaches the target, unless the link forwards
    none."""
    link = await service.shorten("https://example.org/a?utm_source=x&y=1", forward_query=True)
    path = f"/{link['code']}"
    assert (await api.get(f"{path}?utm_source=mail")).headers[
        "location"
    ] == "https://example.org/a?y=1&utm_source=mail"
    refused = await api.get(f"{path}/b")
    assert (refused.status_code, refused.json()["type"]) == (404, URN + "no-such-address")
    await api.patch(f"/api/v1/links/{link['code']}", json={"forward_query": False, "forward_path": True})
    deeper = await api.get(f"{path}/b/c?utm_source=mail")
    assert (deeper.status_code, deeper.headers["location"]) == (
        302,
        "https://example.org/a/b/c?utm_source=x&y=1",
    )
    upwards = await service.workers[0].say(
        f"GET {path}/..%2Fx HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    )
    assert upwards.startswith(b"HTTP/1.1 400 ")


async def test_a_link_redirects_as_often_as_it_may(service: Service, api: httpx.AsyncClient) -> None:
    """A link is used up after `max_clicks` visits over all workers; whoever only looks, prefetches or previews uses
    none."""
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
    await until(lambda: leads(other, path, OVER))
    await api.patch(f"/api/v1/links/{link['code']}", json={"max_clicks": 4})
    await until(lambda: leads(other, path, "https://example.org/"))
    assert await leads(one, path, OVER)


BROWSER = {"Accept": "text/html"}


async def test_a_password_opens_a_link_once(service: Service, api: httpx.AsyncClient) -> None:
    """A browser gets a form that needs no script; the right password redirects with 303, so that no target receives
    it."""
    link = await service.shorten(
        password="open sesame", redirect_status=307, max_clicks=2, forward_query=True
    )
    path = f"/{link['code']}"
    assert link["has_password"] and "open sesame" not in str(link)
    for method in ("GET", "HEAD", "PUT"):
        assert (await api.request(method, path)).status_code == 403
    page = await api.get(path, headers=BROWSER)
    assert '<form method="post">' in page.text and "<script" not in page.text
    assert "form-action 'self' http: https:" in page.headers["content-security-policy"]
    for password, type_ in (("wrong", "password-wrong"), ("", "password-wrong")):
        refused = await api.post(path, data={"password": password})
        assert (refused.status_code, refused.json()["type"]) == (403, URN + type_)
    assert (await api.post(path, content=b"password=open+sesame")).json()["type"] == URN + "password-needed"
    assert (await api.post(path, data={"password": "x" * 5_000})).status_code == 413
    for status in (303, 303, 410):
        opened = await api.post(f"{path}?a=b", data={"password": "open sesame"})
        assert opened.status_code == status
        assert status == 410 or opened.headers["location"] == "https://example.org/?a=b"
    assert (await api.get(path)).status_code == 403


async def test_a_preview_tells_no_secret_and_uses_nothing_up(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A link with a password has no preview; that of a link with `max_clicks` leaves its clicks to visitors."""
    secret = await service.shorten(password="open sesame")
    refused = await api.get(f"/{secret['code']}+")
    assert (refused.status_code, refused.json()["type"]) == (403, URN + "password-needed")
    assert "<form" not in (await api.get(f"/{secret['code']}+", headers=BROWSER)).text
    link = await service.shorten(max_clicks=1)
    statuses = [(await api.get(f"/{link['code']}{sign}")).status_code for sign in ("+", "+", "", "+")]
    assert statuses == [200, 200, 302, 410]


async def test_a_new_password_ends_the_old_one_at_once(service: Service, api: httpx.AsyncClient) -> None:
    """Once a change of the password is acknowledged, no worker accepts the old one; null takes it away."""
    link = await service.shorten(password="the old one")
    path, other = f"/{link['code']}", service.clients[1]
    for password in ("the new one", "the newest one"):
        assert (await other.post(path, data={"password": "the old one"})).status_code in (303, 403)
        await api.patch(f"/api/v1/links/{link['code']}", json={"password": password})
        for client, given, status in (
            (other, "the old one", 403),
            (other, password, 303),
            (api, password, 303),
        ):
            assert (await client.post(path, data={"password": given})).status_code == status
    changed = await api.patch(f"/api/v1/links/{link['code']}", json={"password": None})
    assert not changed.json()["has_password"]
    assert (await api.get(path)).status_code == 302


async def test_guesses_are_limited_per_client_and_per_link(make_service: ServiceMaker) -> None:
    """Whoever sends too many wrong passwords gets 429, also with the right one; right ones do not count."""
    async with make_service(SNAPURL_LIMIT_PASSWORD="2/hour", SNAPURL_PROXIES="127.0.0.1") as service:
        link, visitor = await service.shorten(password="open sesame"), service.client()

        async def guess(password: str, address: str) -> int:
            answer = await visitor.post(
                f"/{link['code']}", data={"password": password}, headers={"X-Forwarded-For": address}
            )
            return answer.status_code

        assert [await guess("open sesame", "192.0.2.1") for _ in range(3)] == [303] * 3
        assert [await guess("wrong", "192.0.2.1") for _ in range(4)] == [403, 403, 403, 429]
        assert await guess("open sesame", "192.0.2.1") == 429
        others = [await guess("wrong", f"192.0.2.{number}") for number in range(2, 21)]
        assert others == [403] * 18 + [
            429
        ]  # the first three count too: 21 are one more than ten times the rate
        assert await guess("open sesame", "192.0.2.99") == 429
        assert "open" not in service.workers[0].log.read_text()


async def test_a_bulk_create_hashes_a_bounded_number_of_passwords(api: httpx.AsyncClient) -> None:
    """Of the links of one call a bounded number may have a password; the others are refused one by one."""
    items = [{"url": "https://example.org/", "password": "open sesame"}] * (PASSWORDS_MAX + 1)
    answer = await api.post("/api/v1/links/bulk", json={"links": [*items, {"url": "https://example.org/"}]})
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [201] * PASSWORDS_MAX + [422, 201]
    assert results[-2]["error"]["errors"][0]["pointer"] == "/password"
    assert [results[0]["link"]["has_password"], results[-1]["link"]["has_password"]] == [True, False]


async def test_a_rule_leads_its_visitors_elsewhere(service: Service, api: httpx.AsyncClient) -> None:
    """Visitors go to the target of the first rule that holds for them, all others to the URL of the link."""
    rules = [
        {"if": {"os": ["ios"], "query": {"app": None}}, "url": "https://apps.example/ios"},
        {"if": {"language": ["de"]}, "url": "https://example.org/de"},
    ]
    link = await service.shorten(rules=rules)
    phone = {
        "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Mobile/15E148 Safari/604.1"
    }
    for headers, query, leads in (
        ({}, "", "https://example.org/"),
        (phone, "?app", "https://apps.example/ios"),
        (phone, "", "https://example.org/"),
        ({**phone, "Accept-Language": "de-AT,en;q=0.5"}, "?x", "https://example.org/de"),
    ):
        assert (await api.get(f"/{link['code']}{query}", headers=headers)).headers["location"] == leads
    cleared = await api.patch(f"/api/v1/links/{link['code']}", json={"rules": []})
    assert (link["rules"], cleared.json()["rules"]) == (rules, None)


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
        ({"password": "abc"}, "/password"),
        ({"password_hash": "$argon2id$"}, "/password_hash"),
        ({"rules": [{"if": {}, "url": OVER}]}, "/rules/0/if"),
        ({"rules": [{"if": {"country": ["DE"]}, "url": OVER}]}, "/rules/0/if/country"),
        ({"rules": [{"if": {"os": ["ios"]}, "url": "https://s.example.org/x"}]}, "/rules/0/url"),
        ({"rules": [{"if": {"os": ["ios"]}, "url": OVER}] * 21}, "/rules"),
        ({"rules": [{"if": {"os": ["ios"]}, "url": OVER + "x" * 1_000}] * 20}, "/rules"),
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
