"""Bodies that cost more than they may: each attack is measured by the work that it causes, not by time."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from snapurl.config import load_settings
from snapurl.errors import Invalid, Unavailable
from snapurl.http import bodies, dispatch
from snapurl.http.bodies import BodyBound, BodyThreads
from snapurl.http.schema import requests
from snapurl.http.schema.requests import ERRORS_MAX, LINK_VALUES_MAX, Bulk, LinkChange, LinkDraft, check
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.run import worker
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.paths import Side
from tests.integration.http.test_fast_states import BOTH, Open, loop, on_loop, open_side
from tests.support.waits import HANG_S, unless_hung, until
from tests.unit.http.test_requests import RULES, URL

__all__ = ["loop", "open_side"]  # fixtures

JSON = {"Content-Type": "application/json"}
LINKS, BULK, ONE = "/api/v1/links", "/api/v1/links/bulk", "/api/v1/links/abc"
ROUTES = [("POST", LINKS), ("POST", BULK), ("PATCH", ONE)]
BODY = json.dumps({"url": URL}).encode()
MANY = 400_000
LINK_BYTES_MAX = BodyBound.of(1, load_settings()).bytes_max

ATTACKS = {
    "names": b"{" + b",".join(b'"%d":0' % number for number in range(MANY)) + b"}",
    "objects": b'{"links":[' + b"{}," * MANY + b"{}]}",
    "numbers": b'{"links":[' + b"0," * MANY + b"0]}",
    "strings": b"[" + b'"",' * MANY + b'""]',
    "arrays": b'{"url":' + b"[" * MANY + b"]" * MANY + b"}",
    "names in a draft": b'{"links":[{"url":"x",' + b'"x":0,' * MANY + b'"y":0}]}',
    "separators in strings": b'{"links":["' + b",[{" * 200 + b'",' + b"0," * MANY + b"0]}",
}


class CountingDecoder:
    """The decoder of bodies; counts the values that it makes."""

    def __init__(self) -> None:
        self.values = 0
        self._decoder = requests._DECODER

    def decode(self, text: str) -> object:
        value = self._decoder.decode(text)
        self.values += count_values(value)
        return value


def count_values(value: object) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count_values, children))


def client_of(service: Side, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=HANG_S, headers=headers)


async def answer_to(port: int, head: bytes) -> bytes:
    """Returns the head of the answer to a request whose body never arrives."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head)
        return await unless_hung(reader.readuntil(b"\r\n\r\n"))
    finally:
        writer.close()


def head_of(path: str, length: int, *lines: str) -> bytes:
    first = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    )
    return (first + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


# -- values ------------------------------------------------------------------------------------------------------


@BOTH
@on_loop
async def test_a_body_of_too_many_values_is_refused_unparsed(
    open_side: Open, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each body of 4 MB made of tiny values, and each of 60 KB, is refused on every route without being parsed."""
    monkeypatch.setattr(requests, "_DECODER", decoder := CountingDecoder())
    async with open_side(is_fast, anonymous_creation=True) as service, client_of(service) as client:
        for (_, path), body in ((route, body) for route in ROUTES[:2] for body in ATTACKS.values()):
            answer = await client.post(path, content=body, headers=JSON)
            assert answer.status_code in (400, 413), answer.text
        for body in ATTACKS.values():
            for small in (body[:60_000], body[:15_000]):
                answer = await client.post(LINKS, content=small, headers=JSON)
                assert answer.status_code == 400, answer.text
        assert decoder.values == 0
        assert (await client.post(LINKS, content=BODY, headers=JSON)).status_code == 201
        assert decoder.values == 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_values_are_counted_only_up_to_the_bound(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusing a body takes no more tokens than the bound has, however long the body is."""
    seen = 0

    class Counting:
        def finditer(self, raw: bytes) -> Any:
            nonlocal seen
            for token in pattern.finditer(raw):
                seen += 1
                yield token

    pattern = requests._TOKEN
    monkeypatch.setattr(requests, "_TOKEN", Counting())
    assert not requests._has_at_most(ATTACKS[attack], LINK_VALUES_MAX)
    assert seen <= 3 * LINK_VALUES_MAX + 1


@pytest.mark.parametrize(
    "value",
    [
        {"url": URL, "tags": [f"tag {number}" for number in range(20)], "title": "t" * 300},
        {"url": URL + "a,b" * 2_000},
        {"url": URL + "?f=[{" * 1_500},
        {"url": URL, "title": '"\\",[{' * 40},
        {"url": URL, **{f"unknown {number}": number for number in range(30)}},
        {"url": URL, "tags": ["é😀"] * 40},
    ],
)
def test_no_body_that_could_be_a_link_has_too_many_values(value: dict[str, Any]) -> None:
    """Separators within strings do not count, and a bound leaves room for errors that point at a field."""
    for raw in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=4).encode()):
        assert requests.parse_json(raw, LINK_VALUES_MAX) == value


def test_the_largest_link_fits_the_bound_of_its_route() -> None:
    """A link with the longest texts fits, even if each of their characters is an escape of 6 or 12 bytes."""
    url = "https://example.org/" + "é" * (load_settings().url_chars_max - 20)
    value = {
        "url": url, "alias": "x" * 64, "title": "😀" * 300, "tags": ["😀" * 49 + str(n % 10) for n in range(20)],
        "expires_at": "2099-12-31T23:59:59.123456789+00:00", "redirect_status": 302, "expired_url": url,
        "note": "😀" * 2_000, "password": "😀" * 200, "max_clicks": 1_000_000_000,
        "rules": [{"if": {"query": {"a": "é" * 200}}, "url": url[:600]} for _ in range(20)],
    }  # fmt: skip
    raw = json.dumps(value, indent=2).encode()
    assert 200_000 < len(raw) <= LINK_BYTES_MAX < 250_000


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [LinkDraft, LinkChange, Bulk])
@pytest.mark.parametrize(
    "value",
    [
        {f"x{number}": number for number in range(5_000)},
        {"url": URL, "tags": [1] * 5_000},
        {"url": URL, "tags": ["x"] * 5_000},
        {"url": {f"x{number}": number for number in range(5_000)}, "tags": {"a": 1}, "title": [1] * 5_000},
        {"links": [{}] * 5_000, **{f"x{number}": number for number in range(5_000)}},
    ],
    ids=["names", "wrong tags", "tags", "nested", "items"],
)
def test_no_more_errors_are_built_than_can_be_shown(model: type[BaseModel], value: dict[str, Any]) -> None:
    """The number of errors that a refusal builds is bounded by those shown and the fields of the schema."""
    with pytest.raises(Invalid) as refused:
        check(model, value, RULES)
    built = refused.value.__context__
    assert isinstance(built, ValidationError)
    assert built.error_count() <= ERRORS_MAX + len(model.model_fields)
    assert 1 <= len(refused.value.fields) <= ERRORS_MAX


# -- off the event loop ------------------------------------------------------------------------------------------


class Gate:
    """Holds every parse of a large body in its thread until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.held = 0
        self._parse = requests.parse_json
        monkeypatch.setattr(dispatch, "parse_json", self)

    def __call__(self, raw: bytes, values_max: int) -> object:
        if threading.current_thread() is not self.loop_thread:
            self.held += 1
            self.open.wait()
            self.held -= 1
        return self._parse(raw, values_max)

    @property
    def loop_thread(self) -> threading.Thread:
        return next(thread for thread in threading.enumerate() if thread.name == "event loop of a test")


@on_loop
async def test_while_large_bodies_are_parsed_others_are_answered(
    open_side: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten large bodies occupy THREADS_MAX threads; liveness, creates and redirects are answered meanwhile."""
    threading.current_thread().name = "event loop of a test"
    gate = Gate(monkeypatch)
    bulk = json.dumps({"links": [{"url": URL}] * 100}).encode()
    async with (
        open_side(anonymous_creation=True, limit_create="none") as service,
        client_of(service) as client,
    ):
        try:
            attack = [asyncio.create_task(client.post(BULK, content=bulk, headers=JSON)) for _ in range(10)]
            await until(lambda: gate.held == bodies.THREADS_MAX)
            assert (await client.get("/health/live")).status_code == 200
            created = await client.post(LINKS, content=BODY, headers=JSON)
            assert created.status_code == 201
            assert (await client.get(f"/{created.json()['code']}")).status_code == 302
            assert gate.held == bodies.THREADS_MAX
        finally:
            gate.open.set()
        statuses = {answer.status_code for answer in await asyncio.gather(*attack)}
        assert 200 in statuses and statuses <= {200, 503}


def test_a_worker_lets_no_thread_keep_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread parses, the event loop of a worker waits for the interpreter a tenth of Python's default."""
    default, collects_at = sys.getswitchinterval(), gc.get_threshold()
    monkeypatch.setenv("SNAPURL_PORT", "nonsense")
    try:
        assert worker.main(["--fd", "-1"]) == worker.EXIT_CONFIG
        assert sys.getswitchinterval() == pytest.approx(worker.SWITCH_S)
    finally:
        sys.setswitchinterval(default)
        gc.set_threshold(*collects_at)
    assert worker.SWITCH_S <= 0.005 / 10


async def test_clients_take_turns_for_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has many bodies waits behind one that has one; a cancelled request keeps its turn occupied."""
    threads = BodyThreads()
    threads._turns = FairQueue(bodies.THREADS_MAX, bodies.THREADS_MAX, HANG_S)
    gate, order = threading.Event(), list[str]()

    def call(name: str) -> Callable[[], str]:
        def run() -> str:
            order.append(name)
            assert gate.wait(HANG_S)
            return name

        return run

    many = [asyncio.create_task(threads.run("many", call("many"))) for _ in range(6)]
    await until(lambda: len(order) == bodies.THREADS_MAX)
    one = asyncio.create_task(threads.run("one", call("one")))
    await asyncio.sleep(0)
    many[0].cancel()
    await asyncio.sleep(0.05)
    assert len(order) == bodies.THREADS_MAX
    gate.set()
    assert await one == "one"
    await asyncio.gather(*many[1:])
    assert order.index("one") <= bodies.THREADS_MAX + 1


async def test_a_body_that_waits_too_long_for_a_thread_is_503() -> None:
    """When no thread is free in time, the request is refused and may be repeated."""
    threads, gate = BodyThreads(), threading.Event()
    threads._turns = FairQueue(1, 1, wait_s=0.01)
    first = asyncio.create_task(threads.run("a", gate.wait))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await threads.run("b", gate.wait)
    gate.set()
    assert await first


# -- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LINKS, BULK])
async def test_an_exhausted_limit_answers_before_the_body(make_service: ServiceMaker, path: str) -> None:
    """A client without creates left gets 429 to the head of a request whose body never arrives."""
    async with make_service(SNAPURL_LIMIT_CREATE="1/hour") as service:
        client, port = service.client(), service.workers[0].port
        assert (await client.post(LINKS, content=BODY, headers=JSON)).status_code == 201
        answer = await answer_to(port, head_of(path, 50_000))
        assert answer.startswith(b"HTTP/1.1 429 ") and b"retry-after: " in answer.lower()


@pytest.mark.parametrize("path", [LINKS, BULK])
async def test_a_refused_body_counts_against_the_limit(make_service: ServiceMaker, path: str) -> None:
    """Each refused create counts as at least one, whatever is wrong with it; then a sound one gets 429."""
    refused = [
        (b"{", JSON, 400),
        (ATTACKS["names"][:10_000], JSON, 400),
        (b"[]", JSON, 422),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"x" * 5_000_000, JSON, 413),
    ]
    async with make_service(SNAPURL_LIMIT_CREATE=f"{len(refused)}/hour") as service:
        client = service.client()
        for body, headers, status in refused:
            assert (await client.post(path, content=body, headers=headers)).status_code == status
        assert (await client.post(LINKS, content=BODY, headers=JSON)).status_code == 429


async def test_a_bulk_holds_no_more_bytes_than_the_limit_lets_through(make_service: ServiceMaker) -> None:
    """A bulk longer than the links that its client may create is refused by its head, or once so much arrived."""
    async with make_service(SNAPURL_LIMIT_CREATE="2/hour") as service:
        port = service.workers[0].port
        assert (await answer_to(port, head_of(BULK, 2 * LINK_BYTES_MAX + 1))).startswith(b"HTTP/1.1 413 ")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield b" " * 10_000

        answer = await service.client().post(BULK, content=chunks(), headers=JSON)
        assert answer.status_code in (413, 429)
        assert (await answer_to(port, head_of(BULK, 10))).startswith(b"HTTP/1.1 429 ")


async def test_a_long_bulk_counts_as_many_links_before_it_is_read(make_service: ServiceMaker) -> None:
    """A bulk with the bytes of more links than are left gets 429 to its head; one in chunks, before its parse."""
    async with make_service(SNAPURL_LIMIT_CREATE="5/hour") as service:
        client, port = service.client(), service.workers[0].port
        three = json.dumps({"links": [{"url": URL}] * 3}).encode()
        assert (await client.post(BULK, content=three, headers=JSON)).status_code == 200
        assert (await answer_to(port, head_of(BULK, 4 * LINK_BYTES_MAX))).startswith(b"HTTP/1.1 429 ")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"{" * LINK_BYTES_MAX

        assert (await client.post(BULK, content=chunks(), headers=JSON)).status_code == 429


# -- memory ------------------------------------------------------------------------------------------------------


@on_loop
async def test_bodies_reserve_no_more_memory_than_their_routes_allow(
    open_side: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty bodies of 4 MB to a create, in chunks, reserve the bytes of twenty links; all are released."""
    async with open_side(anonymous_creation=True) as service, client_of(service) as client:
        budget = service.app.ctx.body_budget
        whole = least = budget._left
        reserve = budget.reserve

        def watched(count: int) -> bool:
            nonlocal least
            is_reserved = reserve(count)
            least = min(least, budget._left)
            return is_reserved

        monkeypatch.setattr(budget, "reserve", watched)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b"x" * 65_536

        answers = await asyncio.gather(
            *(client.post(LINKS, content=chunks(), headers=JSON) for _ in range(20))
        )
        assert {answer.status_code for answer in answers} == {413}
        assert 0 < whole - least <= 20 * LINK_BYTES_MAX
        await until(lambda: budget._left == whole)
