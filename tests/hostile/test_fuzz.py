"""Any body and any head: an answer that OpenAPI lists for the route, a problem if refused, and bounded work."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import settings as trying
from hypothesis import strategies as st

from snapurl.config import Settings
from snapurl.http.docs.openapi import document
from snapurl.http.routes import ROUTES
from snapurl.http.schema import requests
from snapurl.http.schema.requests import LINK_VALUES_MAX, RULES_VALUES_MAX
from snapurl.keys import PlainKey, create_key
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.hostile.test_bodies import BULK, LINKS, CountingDecoder
from tests.hostile.test_headers import LONG
from tests.integration.http.paths import Loop, Side, connected, read_all, side
from tests.support.waits import HANG_S

EXAMPLES = 60
BULK_LINKS = 5
VALUES_MAX = BULK_LINKS * LINK_VALUES_MAX + RULES_VALUES_MAX

DOCUMENT = document(ROUTES, "https://s.example.org", "1", anonymous=True)
ONE = "/api/v1/links/{code}"
UNREADABLE = {"400", "408", "413"}
"""What a head or a body that is no HTTP gets, on any route."""


class Target:
    """A service in this process, with a key of each kind, and the loop that it runs on."""

    def __init__(self, loop: Loop, service: Side, keys: list[str]) -> None:
        self.loop = loop
        self.service = service
        self.keys = keys

    def say(self, data: bytes) -> bytes:
        """Sends bytes over a new connection, ends it, and returns all bytes received."""
        return self.loop.run(self._say(data))

    async def _say(self, data: bytes) -> bytes:
        async with connected(self.service.port) as connection:
            await asyncio.get_running_loop().sock_sendall(connection, data)
            return await read_all(connection)


@pytest.fixture(scope="module", params=[True, False], ids=["fast", "slow"])
def target(shared_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Target]:
    """Yields a service without limits, whose time-outs end what never arrives."""
    unlimited = dict.fromkeys(("limit_create", "limit_missing", "limit_api", "limit_unauthorized"), "none")
    update = {
        "anonymous_creation": True,
        "bulk_links_max": BULK_LINKS,
        "fast_path": request.param,
        **unlimited,
    }
    loop = Loop()
    loop.run(migrate_all(shared_settings))
    loop.run(ensure_cluster(shared_settings))
    made = side(shared_settings.model_copy(update=update), REQUEST_TIMEOUT=1.0, RESPONSE_TIMEOUT=HANG_S)
    service = loop.run(made.__aenter__())
    rights = ["create", "read", "change"]
    keys = [loop.run(create_key(shared_settings, "fuzz", each, "none")) for each in (rights, ["admin"])]
    yield Target(loop, service, [*keys, str(PlainKey.random()), "nonsense"])
    loop.run(made.__aexit__(None, None, None))
    loop.close()


# -- bodies ------------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
FIELDS = {
    "url": st.sampled_from(["https://example.org/", "https://example.org/é", "javascript:x", "http://[::1"]),
    "alias": st.sampled_from(["fuzz-1", "fuzz-2", "api", "\ud800"]),
    "title": st.text(max_size=310),
    "tags": st.lists(st.text(max_size=3), max_size=25),
    "expires_at": st.sampled_from(["2099-01-01T00:00:00Z", "2001-01-01T00:00:00Z", "x", None]),
    "redirect_status": st.sampled_from([301, 302, 308, 200, "302"]),
}
drafts = st.fixed_dictionaries({}, optional={name: near | values for name, near in FIELDS.items()})
bulks = st.fixed_dictionaries({"links": st.lists(drafts | values, max_size=7) | values})
repeated = st.builds(
    lambda begin, item, times, end: begin + item * times + end,
    st.sampled_from([b"", b"[", b"{", b'{"url":', b'{"links":[', b'{"links":[{"url":"']),
    st.sampled_from(
        [b"[", b"{},", b"0,", b'"a":', b'"",', b'{"":', b"\\", b'"', b"9", b"\xff", b",", b"\\u00e9"]
    ),
    st.sampled_from([1, 63, 64, 65, 1_000, 20_000, 60_000]),
    st.sampled_from([b"", b"0]", b"}", b'"}]}', b'":0}', b"]}"]),
)
json_bodies = st.one_of(values, drafts, bulks).map(lambda value: json.dumps(value).encode("utf-8", "replace"))


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """Draws JSON with some bytes replaced."""
    raw = bytearray(draw(json_bodies))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b"", b",", b'"', b"{", b"]", b"\0", b"\xc3"])
        )
    return bytes(raw)


bodies = st.one_of(json_bodies, changed(), repeated, st.binary(max_size=60))

# -- heads -------------------------------------------------------------------------------------------------------

TARGETS = st.sampled_from([
    *[("POST", "/api/v1/links")] * 4, *[("POST", "/api/v1/links/bulk")] * 4,
    *[("PATCH", "/api/v1/links/{code}")] * 2, ("GET", "/api/v1/links"), ("GET", "/api/v1/links/{code}"),
    ("DELETE", "/api/v1/links/{code}"), ("GET", "/api/v1/links/{code}/stats"), ("GET", "/api/v1/ring"),
    ("GET", "/health/live"), ("GET", "/"), ("GET", "/docs"), ("GET", "/{code}"), ("HEAD", "/{code}"),
])  # fmt: skip
CODES = st.sampled_from(["fuzz-1", "none", "a.b", "x" * 65, "%2e%2e", "é".encode().hex()])
QUERIES = st.sampled_from(
    [""] * 8 + ["?", "?limit=1", "?limit=0", "?cursor=" + "A" * 300, "?a=%ff", "?x" + "&x" * 50]
)
NAMES = st.sampled_from([
    "Accept", "Accept-Language", "Accept-Encoding", "Authorization", "X-Api-Key", "Content-Type",
    "Content-Encoding", "Cookie", "Forwarded", "Idempotency-Key", "If-Match", "If-None-Match", "Range",
    "Referer", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host", "X-Request-Id", "Traceparent", "Host", "X",
])  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["", "*", '"1"', '"1", "2"', "a" * 256, "Bearer x", "application/json"]),
    st.sampled_from(["text/html", "text/html;self=1"]),
    st.sampled_from(LONG).map(lambda value: value[:12_000]),
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
)  # fmt: skip


def answers(data: bytes) -> list[tuple[str, dict[str, str], bytes]]:
    """Splits the bytes of a connection into answers: status, headers, body."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        found.append((first.split(" ")[1], headers, data[:length]))
        data = data[length:]
    return found


def check_answer(answer: tuple[str, dict[str, str], bytes], method: str, route: str) -> None:
    """Asserts that an answer is one that OpenAPI lists for the route, and well formed."""
    status, headers, body = answer
    documented = set(DOCUMENT["paths"][route][method.lower()]["responses"])
    assert status in documented | UNREADABLE, (method, route, status, body[:300])
    if status >= "400":
        assert re.match(r"application/problem\+json|text/html", headers["content-type"])
        assert len(body) < 10_000
        for inside in (b"Traceback", b"sanic", b"pydantic", b".py"):
            assert inside not in body
        if headers["content-type"] == "application/problem+json" and method != "HEAD":
            problem: dict[str, Any] = json.loads(body)
            assert str(problem["status"]) == status and problem["type"].startswith("urn:snapurl:problem:")


def ask(target: Target, method: str, path: str, lines: list[tuple[str, str]], body: bytes) -> bytes:
    """Sends one request and returns the answer."""
    own = [("Host", "s"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    names = {name.lower() for name, _ in own}
    rest = [(name, value) for name, value in lines if name.lower() not in names]
    head = "".join(f"{name}: {value}\r\n" for name, value in [*own, *rest])
    return target.say(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)


SHARED = trying(max_examples=EXAMPLES)


@SHARED
@given(st.sampled_from([("POST", LINKS), ("POST", BULK), ("PATCH", ONE)]), bodies)
def test_any_body_gets_a_documented_answer_in_bounded_work(
    target: Target, route: tuple[str, str], body: bytes
) -> None:
    """Any body is accepted or refused with a documented problem, and at most the allowed values are parsed."""
    method, path = route
    lines = [("Content-Type", "application/json"), ("X-Api-Key", target.keys[0])]
    decoder = CountingDecoder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "_DECODER", decoder)
        (answer,) = answers(ask(target, method, path.replace("{code}", "fuzz-1"), lines, body))
    note(f"{answer}")
    check_answer(answer, method, path)
    assert decoder.values <= (VALUES_MAX if path.endswith("/bulk") else LINK_VALUES_MAX + RULES_VALUES_MAX)


@SHARED
@given(
    TARGETS, CODES, QUERIES, st.lists(st.tuples(NAMES, VALUES), max_size=4), st.integers(0, 4), json_bodies
)
def test_any_head_gets_a_documented_answer(
    target: Target,
    route: tuple[str, str],
    code: str,
    query: str,
    lines: list[tuple[str, str]],
    key: int,
    body: bytes,
) -> None:
    """Whatever stands in the headers, the answer is one of those that OpenAPI lists for the route."""
    method, path = route
    if key < len(target.keys):
        lines = [*lines, ("X-Api-Key", target.keys[key]), ("Content-Type", "application/json")]
    (answer,) = answers(ask(target, method, path.replace("{code}", code) + query, lines, body))
    note(f"{answer}")
    check_answer(answer, method, path)
