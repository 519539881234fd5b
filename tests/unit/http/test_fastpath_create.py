"""Which creates the fast path reads, and that it writes responses as Sanic does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sanic import HTTPResponse
from sanic.headers import format_http1_response

from snapurl.http.fastpath.create import WholeRequest, response_bytes, whole_request
from snapurl.http.fastpath.plain_heads import CREATE_HEAD

LINE = b"POST /api/v1/links HTTP/1.1\r\nHost: a\r\n"
LENGTH = b"content-length: 2\r\n"
CONNECTION: Any = SimpleNamespace(app=None, transport=None, conn_info=SimpleNamespace(client_ip="192.0.2.1"))


def read(data: bytes, at: int = 0) -> WholeRequest | None:
    head = CREATE_HEAD.match(data, at)
    return None if head is None else whole_request(head, data, CONNECTION)


def test_a_whole_create_is_a_request_of_sanics() -> None:
    """The fast path reads the same path, headers, client and body as Sanic, and leaves later bytes alone."""
    data = b"GET / HTTP/1.1\r\n\r\n" + LINE + b"X-A:  b \r\nx-a: c\r\n" + LENGTH + b"\r\n{}GET"
    request = read(data, data.index(b"POST"))
    assert request is not None
    assert (request.method, request.path, request.query_string) == ("POST", "/api/v1/links", "")
    assert (request.ip, request.body, request.stream) == ("192.0.2.1", b"{}", None)
    assert list(request.headers.items()) == [
        ("host", "a"),
        ("x-a", "b "),
        ("x-a", "c"),
        ("content-length", "2"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        LINE + LENGTH + b"\r\n{",
        LINE + LENGTH,
        LINE + b"\r\n{}",
        LINE + LENGTH + b"host: a\r\n\r\n{}",
        LINE.replace(b"Host: a", b"x: y") + LENGTH + b"\r\n{}",
        LINE.replace(b"Host: a", b"Host: a b") + LENGTH + b"\r\n{}",
        LINE + LENGTH + LENGTH + b"\r\n{}",
        LINE + LENGTH + b"Content-Length: 2\r\n\r\n{}",
        LINE + b"content-length: +2\r\n\r\n{}",
        LINE + b"content-length: 2 \r\n\r\n{}",
        LINE + b"content-length: 1234567890\r\n\r\n{}",
        LINE + b"content-length:\r\n\r\n{}",
        LINE + b"content-length : 2\r\n\r\n{}",
        LINE + LENGTH + b"transfer-encoding: chunked\r\n\r\n{}",
        LINE + LENGTH + b"Expect: 100-continue\r\n\r\n{}",
        LINE + LENGTH + b"upgrade: h2c\r\n\r\n{}",
        LINE + LENGTH + b"connection: close\r\n\r\n{}",
        LINE + LENGTH + b"connection: keep-alive, close\r\n\r\n{}",
        LINE + LENGTH + b" folded: x\r\n\r\n{}",
        LINE + LENGTH + b"x: y\nz: a\r\n\r\n{}",
        LINE + LENGTH + b"x: \xc3\xbc\r\n\r\n{}",
        LINE.replace(b"links", b"links?") + LENGTH + b"\r\n{}",
        LINE.replace(b"links", b"links/bulk") + LENGTH + b"\r\n{}",
        LINE.replace(b"1.1", b"1.0") + LENGTH + b"\r\n{}",
        LINE.replace(b"POST", b"PUT") + LENGTH + b"\r\n{}",
    ],
)
def test_what_is_not_plain_and_whole_is_sanics(data: bytes) -> None:
    """A create that is not plain or not complete is left to Sanic."""
    assert read(data) is None


@pytest.mark.parametrize("status", [201, 400, 401, 409, 415, 422, 429, 500, 503])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("body", [b"{}", b'{"a": "\xc3\xbc"}', b""])
def test_an_answer_is_written_as_sanic_writes_it(status: int, keep_alive: bool, body: bytes) -> None:
    """The fast path writes the same bytes as Sanic, with the headers in the same order."""

    def answer() -> HTTPResponse:
        headers = {"x-request-id": "a.b-c", "ratelimit": '"create";r=1;t=2', "location": "/api/v1/links/a"}
        return HTTPResponse(body, status, headers, "application/json")

    sanics = answer()
    sanics.headers["date"] = "Sun, 06 Nov 1994 08:49:37 GMT"
    sanics.headers["content-length"] = str(len(body))
    sanics.headers["connection"] = "keep-alive" if keep_alive else "close"
    expected = format_http1_response(status, sanics.processed_headers) + body
    assert response_bytes(answer(), sanics.headers["date"], keep_alive=keep_alive) == expected
