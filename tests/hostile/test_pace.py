"""What no limit counts is answered at its client's pace; what is served never waits for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest

from snapurl.config import Settings
from snapurl.http.wire import pace
from snapurl.http.wire.pace import ANSWERS_PER_S, BURST_S, DISCARDED_BYTES, WAIT_S_MAX, AnswerPace
from snapurl.keys import PlainKey
from snapurl.model import Right
from snapurl.telemetry.metrics import PACED
from tests.hostile.bodies import posted
from tests.integration.http.paths import Pair, Side, count, paired
from tests.integration.http.test_fast_states import ready
from tests.support.waits import HANG_S

BURST = int(BURST_S * ANSWERS_PER_S)
FEW = 5  # answers that a client of these services gets at once
LINKS = "/api/v1/links"
CREATE = posted(LINKS, b'{"url":"https://example.org/"}')


class Clock:
    """A clock that stands still until it is set."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


LIVE = get("/health/live")


# -- the pace ------------------------------------------------------------------------------------------------------


def test_a_client_waits_beyond_its_burst_and_no_longer_than_the_bound() -> None:
    """A burst is free, then each answer waits longer than the last, up to the bound; rest restores the burst."""
    keeps = AnswerPace(clock := Clock())
    assert [keeps.spend("a", 1) for _ in range(BURST)] == [0.0] * BURST
    waits = [keeps.spend("a", 1) for _ in range(10_000)]
    assert waits[0] == pytest.approx(1 / ANSWERS_PER_S) and waits[1] == pytest.approx(2 / ANSWERS_PER_S)
    assert waits[-1] == WAIT_S_MAX
    assert keeps.spend("b", 1) == 0.0
    clock.now += WAIT_S_MAX + BURST_S
    assert [keeps.spend("a", 1) for _ in range(BURST)] == pytest.approx([0.0] * BURST)
    assert keeps.spend("a", 1) > 0


def test_the_clients_of_a_site_have_a_wider_pace_together() -> None:
    """Thousands of /64s of one IPv6 /48, each within its own pace, wait for that of the /48; others do not."""
    keeps = AnswerPace(Clock())
    clients = [f"2001:db8:1:{number:x}::/64" for number in range(20 * BURST)]
    assert any(keeps.spend(client, 1) for client in clients)
    assert not any(keeps.spend(client, 1) for client in ("2001:db8:2::/64", "192.0.2.1"))


def test_the_memory_for_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more clients than the bound, those that asked last are known."""
    monkeypatch.setattr(pace, "CLIENTS_MAX", 3)
    keeps = AnswerPace(Clock())
    for name in "abcdabcd":
        keeps.spend(name, BURST)
    assert len(keeps._due_s) == 3
    assert keeps.spend("d", 1) > 0 and keeps.spend("e", 1) == 0.0


# -- the service ---------------------------------------------------------------------------------------------------

ADDRESSES = (
    f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in itertools.count(0x4D0001)
)


@pytest.fixture(scope="module")
def pair(shared_settings: Settings) -> Iterator[Pair]:
    """Yields services with and without the fast path. A client has FEW answers at once, and time stands still."""
    limits = {"limit_create": "1/hour", "limit_unauthorized": "1/hour", "limit_missing": "1/hour"}
    settings = shared_settings.model_copy(update={"anonymous_creation": True, **limits})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pace, "BURST_S", FEW / ANSWERS_PER_S)
        patch.setattr("snapurl.app.AnswerPace", lambda: AnswerPace(Clock()))
        with paired(settings) as pair:
            yield pair


@pytest.fixture(params=["fast", "slow"])
def service(pair: Pair, request: pytest.FixtureRequest) -> Side:
    return pair.fast if request.param == "fast" else pair.slow


async def asked(service: Side, address: str, *requests: bytes) -> tuple[list[int], int]:
    """Asks from an address, one connection per request. Returns the statuses, and how many answers waited."""
    before, statuses = count(PACED), []
    for request in requests:
        ends = await asyncio.open_connection("127.0.0.1", service.port, local_addr=(address, 0))
        ends[1].write(request)
        async with asyncio.timeout(HANG_S):
            statuses.append(int((await ends[0].readuntil(b"\r\n\r\n"))[9:12]))
        ends[1].close()
    return statuses, count(PACED) - before


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/health/live"), 200),
        (get("/docs"), 200),
        (get("/api/v1/ring"), 401),
        (get("/api/v1/not-there"), 404),
        (get("/no.code"), 404),
        (get(LINKS, method="BREW"), 405),
        (b"nonsense\r\n\r\n", 400),
        (get("/a", *["X: y"] * 150), 413),
        (posted(LINKS, b"{}", f"X-Api-Key: {PlainKey.random()}"), 429),
        (CREATE, 429),
        (get("/none-such"), 429),
    ],
)
def test_what_no_limit_counts_waits(pair: Pair, service: Side, request_bytes: bytes, status: int) -> None:
    """After FEW answers at once, each further one of this kind waits for its client's pace, and is then given."""
    address = next(ADDRESSES)
    pair.loop.run(asked(service, address, *[request_bytes] * (FEW + 1)))
    statuses, waited = pair.loop.run(asked(service, address, *[request_bytes] * 3))
    assert statuses == [status] * 3 and waited >= 3
    assert pair.loop.run(asked(service, next(ADDRESSES), LIVE)) == ([200], 0)


def test_what_is_served_never_waits(pair: Pair, service: Side) -> None:
    """Of a client beyond its pace, redirects, creates and misses within limits, and keyed requests do not wait."""
    address = next(ADDRESSES)
    pair.loop.run(ready(service))
    key, _ = pair.loop.run(service.app.ctx.services.keys.create("served", frozenset(Right)))
    assert pair.loop.run(asked(service, address, *[LIVE] * 2 * FEW))[1] == FEW
    in_advance, listed = get("/fp-a", "Purpose: prefetch"), get(LINKS, f"X-Api-Key: {key}")
    served = get("/fp-a"), in_advance, CREATE, get("/none-such"), listed
    assert pair.loop.run(asked(service, address, *served)) == ([302, 302, 201, 404, 200], 0)


async def said(service: Side, data: bytes) -> bytes:
    """Sends `data` from a new address. Returns all answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, local_addr=(next(ADDRESSES), 0))
    writer.write(data)
    async with asyncio.timeout(HANG_S):
        answers = await reader.read()
    writer.close()
    return answers


def test_an_answer_that_waits_holds_no_body(
    pair: Pair, service: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a refusal waits for its client's pace, what has arrived of the request's body is dropped."""
    key, length = f"X-Api-Key: {PlainKey.random()}", 200_000
    head = f"POST {LINKS} HTTP/1.1\r\nHost: x\r\n{key}\r\nContent-Length: {length}\r\n\r\n"
    last = get("/health/live", "Connection: close")
    spend, held, costs = service.app.ctx.pace.spend, list[int](), list[float]()

    def watched(client: str, answers: float) -> float:
        held.extend(len(connection.recv_buffer) for connection in service.server.connections)
        costs.append(answers)
        return spend(client, answers)

    monkeypatch.setattr(service.app.ctx.pace, "spend", watched)
    assert pair.loop.run(said(service, head.encode() + b"x" * length + last)).count(b"HTTP/1.1 ") == 2
    assert max(held) <= len(last)
    assert costs[0] > 1.0


@pytest.mark.parametrize("line", ["GET /health/live", f"POST {LINKS}"], ids=["before the answer", "after it"])
def test_a_refused_body_is_thrown_away_at_the_pace(pair: Pair, service: Side, line: str) -> None:
    """A body that nobody uses costs its client by its bytes; the next request is then answered."""
    length = 4 * FEW * DISCARDED_BYTES
    body = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode() + b"x" * length
    last = get("/health/live", "Connection: close")

    before = count(PACED)
    assert pair.loop.run(said(service, body + last)).count(b"HTTP/1.1 ") == 2
    assert count(PACED) - before > 1
