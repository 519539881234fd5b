"""Redirects: the bytes, the statuses, and what browsers see for a missing link."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from snapurl.http.redirect import redirect_bytes
from tests.integration.http.conftest import MISS_MAX_AGE_S
from tests.integration.http.paths import DATE, undated
from tests.integration.http.service import Service

INVALIDATED_S_MAX = MISS_MAX_AGE_S - 5.0  # before the cached miss expires on its own
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_a_redirect_is_byte_for_byte_what_redirect_bytes_says(
    service: Service, status: int, method: bytes
) -> None:
    """A redirect is exactly the bytes of `redirect_bytes`; HTTP/1.0 and `close` end the connection."""
    link = await service.shorten("https://example.org/ü?q=1#f", redirect_status=status)
    path = b"/" + link["code"].encode()
    url = "https://example.org/%C3%BC?q=1#f"
    answer = await service.workers[0].say(
        method + b" " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n"
        + method + b" " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )  # fmt: skip
    keeping, closing = (redirect_bytes(url, status, DATE, keep_alive=keep) for keep in (True, False))
    assert undated(answer) == keeping + closing
    assert undated(await service.workers[0].say(method + b" " + path + b" HTTP/1.0\r\n\r\n")) == closing


OTHER_METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("method", OTHER_METHODS)
async def test_a_link_that_keeps_the_method_redirects_every_method(
    service: Service, api: httpx.AsyncClient, status: int, method: str
) -> None:
    """A link with status 307 or 308 redirects any method, with a body or not; the connection lives on."""
    link = await service.shorten("https://example.org/form", redirect_status=status)
    for body in (b"", b"a=b" * 1_000):
        answer = await api.request(method, f"/{link['code']}", content=body)
        assert (answer.status_code, answer.headers["location"]) == (status, "https://example.org/form")
    assert (await api.get(f"/{link['code']}")).status_code == status


@pytest.mark.parametrize("status", [301, 302])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_link_that_may_change_the_method_takes_safe_methods(
    service: Service, api: httpx.AsyncClient, status: int, method: str
) -> None:
    """A link with status 301 or 302 refuses other methods: clients would repeat a POST as a GET without a body."""
    link = await service.shorten(redirect_status=status)
    answer = await api.request(method, f"/{link['code']}", content=b"a=b")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert "307 or 308" in answer.json()["detail"]
    assert (await api.options(f"/{link['code']}")).status_code == status


@pytest.mark.parametrize("method", OTHER_METHODS)
async def test_a_missing_link_is_missing_for_every_method(api: httpx.AsyncClient, method: str) -> None:
    """Any method gets 404 for a code without a link."""
    assert (await api.request(method, "/nobody-has-this", content=b"a=b")).status_code == 404


async def test_the_query_and_the_spelling_of_the_code_do_not_matter(service: Service) -> None:
    """A redirect ignores the query string and decodes a percent-encoded code."""
    link = await service.shorten(alias="Spelt-It_1" + service.admin_key[-6:])
    code = link["code"]
    for path in (
        f"/{code}?x=1&y",
        f"/{code}?",
        f"/{code.replace('-', '%2D')}",
        f"/{code.replace('S', '%53', 1)}",
    ):
        assert (await service.api.get(path)).status_code == 302, path
    assert (await service.api.get(f"/{code.swapcase()}")).status_code == 404


async def test_every_worker_redirects_what_any_worker_created(service: Service) -> None:
    """Every worker redirects a new link before a cached miss of its code expires."""
    code = "later" + service.admin_key[-7:]
    for client in service.clients[:2]:
        assert (await client.get(f"/{code}")).status_code == 404
    await service.shorten(alias=code)
    async with asyncio.timeout(INVALIDATED_S_MAX):
        for client in service.clients[:2]:
            while (answer := await client.get(f"/{code}")).status_code == 404:
                await asyncio.sleep(0.01)
            assert (answer.status_code, answer.headers["location"]) == (302, "https://example.org/")


async def test_browsers_get_a_page_and_programs_a_problem(service: Service, api: httpx.AsyncClient) -> None:
    """Browsers get 404 and 410 as a page that loads nothing, programs as a problem; the API never sends a page."""
    link = await service.shorten()
    await api.delete(f"/api/v1/links/{link['code']}")
    for path, status in (("/nobody-has-this", 404), (f"/{link['code']}", 410), ("/a/b", 404)):
        page = await api.get(path, headers=BROWSER)
        assert page.status_code == status
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert str(status) in page.text and "<h1>" in page.text
        for accept in ("*/*", "application/json", "application/json, text/html;q=0.9", "", "?/;q=x"):
            answer = await api.get(path, headers={"Accept": accept})
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    assert (
        (await api.get("/api/v1/links/nobody", headers=BROWSER))
        .headers["content-type"]
        .startswith("application/problem+json")
    )


async def test_refusals_are_not_cached(service: Service, api: httpx.AsyncClient) -> None:
    """Errors must not be cached by clients: a code that is 404 now may soon be a link."""
    assert (await api.get("/nobody-has-this")).headers["cache-control"] == "no-store"


async def test_head_of_nothing_has_no_body(service: Service) -> None:
    """HEAD of a missing link has the headers of the GET and no body."""
    answer = await service.workers[0].say(
        b"HEAD /nobody-has-this HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ") and body == b""
