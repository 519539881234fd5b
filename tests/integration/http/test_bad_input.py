"""Invalid input gets a clear problem, is never partly executed, and reveals no internals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.integration.http.service import PUBLIC_URL, Service
from tests.support.waits import until

URL = "https://example.org/"
JSON = {"Content-Type": "application/json"}


def is_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """Returns the body of a problem response. Asserts its status and type."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:snapurl:problem:{slug}"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    for secret in ("Traceback", "asyncpg", "sanic", "pydantic", "postgres", ".py"):
        assert secret not in answer.text
    assert len(answer.content) < 10_000
    return body


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({}, "/url"),
        ({"url": "https://example.org/" + "a" * 60_000}, "/url"),
        ({"url": "javascript:alert(1)"}, "/url"),
        ({"url": "JAVASCRIPT://example.org/%0aalert(1)"}, "/url"),
        ({"url": "data:text/html,<script>alert(1)</script>"}, "/url"),
        ({"url": f"{PUBLIC_URL}/abc"}, "/url"),
        ({"url": "http://S.EXAMPLE.ORG./abc"}, "/url"),
        ({"url": "http://xn--a/"}, "/url"),
        ({"url": "http://xn--zzzzzz999/"}, "/url"),
        ({"url": "https://bank.example@evil.example/"}, "/url"),
        ({"url": "https://example.org/\x00"}, "/url"),
        ({"url": "https://example.org/\r\nSet-Cookie: a=b"}, "/url"),
        ({"url": "https://example.org/\ud800"}, "/url"),
        ({"url": ["https://example.org/"]}, "/url"),
        ({"url": URL, "alias": "health"}, "/alias"),
        ({"url": URL, "alias": "a b"}, "/alias"),
        ({"url": URL, "alias": "../etc"}, "/alias"),
        ({"url": URL, "alias": "x" * 65}, "/alias"),
        ({"url": URL, "alias": "nul\x00"}, "/alias"),
        ({"url": URL, "title": "bell\x07"}, "/title"),
        ({"url": URL, "title": "\ud800"}, "/title"),
        ({"url": URL, "tags": ["nul\x00"]}, "/tags/0"),
        ({"url": URL, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"url": URL, "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({"url": URL, "expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"url": URL, "redirect_status": 200}, "/redirect_status"),
        ({"url": URL, "code": "abc"}, "/code"),
        ({"url": URL, "x\x00": 1}, "/x\x00"),
        ({"url": URL, "x\ud800": 1}, ""),
        ({"url": URL, "x" * 60_000: 1}, "/" + "x" * 199),
    ],
)
async def test_a_draft_that_does_not_fit_is_422_at_its_field(
    api: httpx.AsyncClient, fields: dict[str, Any], pointer: str
) -> None:
    """An invalid field gets 422 with a pointer to it; the response does not repeat the input."""
    answer = await api.post("/api/v1/links", content=json.dumps(fields).encode(), headers=JSON)
    body = is_problem(answer, 422, "invalid")
    assert [error["pointer"] for error in body["errors"]] == [pointer]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"{",
        b"\xff\xfe",
        b'{"url": NaN}',
        b'{"url": "https://example.org/", "url": "https://example.com/"}',
        b"[" * 60_000,
        b"9" * 10_000,
        b'\xef\xbb\xbf{"url": "https://example.org/"}',
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/links"), ("POST", "/api/v1/links/bulk"), ("PATCH", "/api/v1/links/abc")],
)
async def test_what_is_not_json_is_400(
    api: httpx.AsyncClient, method: str, path: str, content: bytes
) -> None:
    """A body that is not JSON gets 400 from every endpoint that reads one."""
    is_problem(await api.request(method, path, content=content, headers=JSON), 400, "bad-request")


@pytest.mark.parametrize("value", [None, 1, "x", [], True])
async def test_json_that_is_no_object_is_422(api: httpx.AsyncClient, value: object) -> None:
    """JSON other than an object gets 422."""
    answer = await api.post("/api/v1/links", content=json.dumps(value).encode(), headers=JSON)
    is_problem(answer, 422, "invalid")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json; a=b; charset=utf-16"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_media_type_is_415(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Any media type but plain JSON in UTF-8 gets 415."""
    answer = await api.post("/api/v1/links", content=b'{"url": "https://example.org/"}', headers=headers)
    is_problem(answer, 415, "unsupported-media-type")


@pytest.mark.parametrize(
    "media",
    [
        'Application/JSON; charset="UTF-8"',
        "application/json; charset=utf8",
        "application/json;charset=UTF8",
        "application/json ; Charset = utf-8",
        "application/json;",
        "application/json; profile=x; charset=utf-8",
    ],
)
async def test_json_with_parameters_is_read(api: httpx.AsyncClient, media: str) -> None:
    """JSON is accepted with every spelling of UTF-8 that clients send, and with parameters that mean nothing."""
    headers = {"Content-Type": media}
    answer = await api.post("/api/v1/links", content=b'{"url": "https://example.org/"}', headers=headers)
    assert answer.status_code == 201


async def test_a_change_may_be_a_merge_patch(service: Service, api: httpx.AsyncClient) -> None:
    """A PATCH accepts its body as application/merge-patch+json, in which null clears a field."""
    link = await service.shorten(title="old")
    headers = {"Content-Type": "application/merge-patch+json"}
    answer = await api.patch(f"/api/v1/links/{link['code']}", content=b'{"title": null}', headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (200, None)


async def test_a_byte_order_mark_is_named(api: httpx.AsyncClient) -> None:
    """A body that begins with a byte order mark is refused in words that say so."""
    content = b'\xef\xbb\xbf{"url": "https://example.org/"}'
    answer = await api.post("/api/v1/links", content=content, headers=JSON)
    assert "byte order mark" in is_problem(answer, 400, "bad-request")["detail"]


async def test_spaces_around_a_pasted_url_are_dropped(service: Service, api: httpx.AsyncClient) -> None:
    """White space around a URL is dropped wherever a URL is given; white space within it is refused."""
    pasted, clean = " \t https://example.org/a\n\u00a0", "https://example.org/a"
    link = await service.shorten(pasted)
    assert link["url"] == clean
    other = await service.shorten(pasted, title="t", tags=["x"])
    assert other["url"] == clean
    bulk = await api.post("/api/v1/links/bulk", json={"links": [{"url": pasted}]})
    assert bulk.json()["results"][0]["link"]["url"] == clean
    changed = await api.patch(f"/api/v1/links/{link['code']}", json={"url": "\nhttps://example.org/b "})
    assert changed.json()["url"] == "https://example.org/b"
    for bad in ("https://example.org/a b", " ", "https://exa mple.org/"):
        is_problem(await api.post("/api/v1/links", json={"url": bad}), 422, "invalid")


async def test_a_body_of_10_mb_is_413_and_the_connection_lives_on(api: httpx.AsyncClient) -> None:
    """A body of 10 MB gets 413, also in chunks; the client can read that and send another request."""

    async def chunks() -> Any:
        for _ in range(160):
            yield b"x" * 65_536

    for content in (b"x" * 10_485_760, chunks()):
        answer = await api.post("/api/v1/links", content=content, headers=JSON)
        is_problem(answer, 413, "too-large")
    assert (await api.get("/api/v1/links?limit=1")).status_code == 200


async def test_a_head_that_is_too_large_is_413(service: Service) -> None:
    """Headers above the limit get 413, as a problem."""
    head = b"GET /health/live HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 20_000 + b"\r\n\r\n"
    answer = await service.workers[0].say(head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"urn:snapurl:problem:too-large" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\nexpect: a miracle\r\ncontent-length: 5\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_request_are_400_and_end_the_connection(
    service: Service, head: bytes
) -> None:
    """Bytes that are not a request, or that two servers could parse differently, get 400 and end the connection."""
    answer = await service.workers[0].say(head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"urn:snapurl:problem:bad-request" in answer
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/links", "GET, HEAD, POST"),
        ("DELETE", "/api/v1/links/bulk", "POST"),
        ("POST", "/api/v1/links/abc", "GET, HEAD, PATCH, DELETE"),
        ("HEAD", "/api/v1/links/bulk", "POST"),
        ("OPTIONS", "/api/v1/ring", "GET, HEAD"),
        ("TRACE", "/api/v1/ring", "GET, HEAD"),
        ("BREW", "/api/v1/ring", "GET, HEAD"),
        ("TRACE", "/abc", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        ("DELETE", "/", "GET, HEAD"),
        ("POST", "/health/ready", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_there_is_405_with_those_that_are(
    api: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    """An unsupported method, known or unknown, gets 405 with the supported ones."""
    answer = await api.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        is_problem(answer, 405, "method-not-allowed")


@pytest.mark.parametrize(
    "path",
    [
        "/api", "/api/", "/api/v1", "/api/v2/links", "/a/b", "/api/v1/links/a/b", "/api/v1/links/x/nothing",
        "/docs/x", "/health",
    ],
)  # fmt: skip
async def test_an_address_that_is_not_there_is_404(api: httpx.AsyncClient, path: str) -> None:
    """An unknown path gets a 404 problem that speaks of addresses and not of links."""
    problem = is_problem(await api.get(path), 404, "no-such-address")
    assert problem["title"] == "There is no such address"
    assert "link" not in problem["detail"]
    page = await api.get(path, headers={"Accept": "text/html"})
    assert "no such address" in page.text and "no such link" not in page.text


async def test_a_link_that_is_not_there_is_404(api: httpx.AsyncClient) -> None:
    """A code without a link gets another type of problem than an unknown path."""
    for path in ("/nobody-has-this", "/api/v1/links/nobody-has-this", "/api/v1/links/a.b", "/a.b"):
        assert is_problem(await api.get(path), 404, "not-found")["title"] == "There is no such link"


async def test_an_unknown_query_parameter_is_422(service: Service, api: httpx.AsyncClient) -> None:
    """The API answers 422 to an unknown query parameter; pages and redirects ignore the query."""
    link = await service.shorten()
    for method, path in (
        ("GET", f"/api/v1/links/{link['code']}"),
        ("DELETE", f"/api/v1/links/{link['code']}"),
        ("GET", "/api/v1/ring"),
    ):
        answer = await api.request(method, f"{path}?dry_run=1")
        assert is_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/query/dry_run"
    is_problem(await api.get("/api/v1/links?a=%ff"), 400, "bad-request")
    is_problem(await api.get("/api/v1/links?" + "&".join(f"a{n}=1" for n in range(50))), 400, "bad-request")
    assert (await api.get(f"/{link['code']}?utm=x")).status_code == 302
    assert (await api.get("/health/live?probe=1")).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "a\tb", "x" * 256])
async def test_an_ill_formed_idempotency_key_is_422(api: httpx.AsyncClient, key: str) -> None:
    """An Idempotency-Key other than 1 to 255 visible ASCII characters gets 422."""
    answer = await api.post("/api/v1/links", json={"url": URL}, headers={"Idempotency-Key": key})
    assert is_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/headers/idempotency-key"


@pytest.mark.parametrize("count", [0, 1_001])
async def test_no_bulk_items_or_too_many_are_422(api: httpx.AsyncClient, count: int) -> None:
    """A bulk request without items, or with too many, gets 422 and creates nothing."""
    answer = await api.post("/api/v1/links/bulk", json={"links": [{"url": URL}] * count})
    assert is_problem(answer, 422, "invalid")["errors"][0]["pointer"] == "/links"


async def test_a_body_where_none_belongs_is_swallowed(service: Service) -> None:
    """An unexpected body is discarded and does not affect the next request on the connection."""
    answer = await service.workers[0].say(
        b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
        b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_a_sane_request_id_comes_back_and_a_strange_one_does_not(api: httpx.AsyncClient) -> None:
    """A valid request id is returned with successes and problems; an invalid one is not."""
    for path in ("/api/v1/ring", "/api/v1/nothing"):
        answer = await api.get(path, headers={"X-Request-Id": "abc-123"})
        assert answer.headers["x-request-id"] == "abc-123"
        answer = await api.get(path, headers={"X-Request-Id": 'a"b c'})
        assert answer.headers["x-request-id"] != 'a"b c'


@pytest.mark.parametrize("target", [b"/a\x00", b"/a\tb", b"http://", b"?", b"a b"])
async def test_an_invalid_address_is_refused_without_a_stack_trace(service: Service, target: bytes) -> None:
    """An invalid URL gets 400 and ends the connection; no stack trace is logged."""
    worker = service.workers[0]
    before = worker.log.read_text()
    answer = await worker.say(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer
    assert worker.log.read_text() == before


async def problems(service: Service, slug: str) -> float:
    """Returns how many responses had that problem type."""
    line = next(
        line
        for line in (await service.inside().get("/metrics")).text.splitlines()
        if line.startswith(f'snapurl_problems_total{{slug="{slug}"}}')
    )
    return float(line.split()[1])


async def test_a_client_that_disconnects_is_not_logged_as_an_error(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A client that disconnects in the middle of a body counts as a time-out; no stack trace is logged."""
    worker = service.workers[0]
    log = worker.log.read_text()
    late, internal = [await problems(service, slug) for slug in ("request-timeout", "internal")]
    head = (
        b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n"
    )
    key = f"x-api-key: {service.admin_key}\r\n\r\n".encode()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.say(head + key + b"{"), 0.3)

    async def counted() -> bool:
        return (
            await problems(service, "request-timeout") > late
            or await problems(service, "internal") > internal
        )

    await until(counted)
    assert await problems(service, "internal") == internal
    assert worker.log.read_text() == log
