"""The fast path: a redirect or a create, answered where its bytes arrive.

Theory. Sanic spends its time on making a request, finding a route and making a response. None of that is needed for
`GET /{code}` of a link in L1: the answer is all but ready. So this protocol looks at what has arrived before Sanic
does. It answers the requests that it wholly understands; from the first one that it does not, everything goes to
Sanic, byte for byte, as if this module did not exist. It therefore never refuses; a head that is not yet complete
is Sanic's, and so is everything until that request has been answered.

A link that L1 does not know is looked up, in Redis and at its shard, and then answered here as well; without Sanic
that costs half as much. Meanwhile the connection waits: what comes on it is held, and once something has come, no
more is read. If it turns out that there is no redirect, the request goes to Sanic with what was found
(`handed_over`), so that nothing is looked up twice, and all refusals are made in one place.

A create that has come whole is carried out here as well, by the handler that Sanic would have called (`whole.py`
has its conditions). The connection waits in the same way, and whatever the handler answers is the answer. If the
client goes away before, the create is given up, as on Sanic's path.

A redirect is answered here if all of this holds, else Sanic answers it:

- *Sanic is between two requests* (`_is_free`): its task waits for the first byte of a head, or has not begun, since
  the request has come along with its connection. Otherwise these bytes may belong to a body, or an answer that has
  to go out first is not yet there.
- *The client reads* (`_can_write`): if it does not, Sanic holds its requests back, and then stops reading.
- *The head is plain* (`HEAD`). Only the spelling that every parser reads the same way: `GET` or `HEAD`, a code
  without `%`, a query or none, `HTTP/1.1`, header names that are tokens, ASCII values. What Sanic would refuse, and
  what it and a proxy in front could read in two ways (a bare line feed, a space before a colon, a folded line), is
  not plain.
- *No header changes how a request is read or answered*: no body (`Content-Length`, `Transfer-Encoding`), no
  `Expect`, no `Upgrade`, and no `Connection` but `keep-alive`, since the answer in hand says that.
- *The head is not longer than Sanic takes* (`reach`).
- *The client is not shut out* for asking for links that do not exist. Behind a proxy only Sanic can tell who the
  client is, so while anybody is shut out it looks.
- *The link is in L1*, where each change of it is heard, or is found, *is not deleted, and has not expired*. It is
  looked up only if that can begin at once: where clients have to take turns (`turns.py`), Sanic's path waits.
- *No route of ours has that name*: a word may have been reserved after a link had taken it.

What is counted is what Sanic's path counts: a click per GET, with the host that referred and the browser family; a
redirect and a cache's answer per request in the metrics, which get them in one sum a few times per second.

Every request is timed, from when its bytes are here until its answer is written; those that come in one packet take
as long as the packet, since the first answer leaves with the last. That costs one more look at the clock and a sum.
What a request waits before the worker gets to its bytes is not in it: `snapurl_loop_lag_seconds` shows that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Protocol

from sanic import HTTPResponse
from sanic.exceptions import RequestCancelled
from sanic.http import Stage

from snapurl.cache.local import Entry
from snapurl.cache.reader import FROM_L1
from snapurl.clicks.sources import browser_of, referrer_of
from snapurl.clicks.tally import Tally
from snapurl.codes import is_code, is_reserved
from snapurl.http.fastpath.create import POST, WholeRequest, answer_bytes, whole_request
from snapurl.http.redirect import REDIRECTED, hand_over, redirect_frame
from snapurl.http.wire.connections import BoundedProtocol
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.limits import Blocklist, client_address
from snapurl.model import CachedLink
from snapurl.telemetry.metrics import CREATES_AHEAD, REDIRECT_SECONDS, REDIRECTS_AHEAD, SECONDS, timing

SETTLE_S = 0.1  # for how long the metrics may lag behind
_AHEAD = timing(REDIRECT_SECONDS, "ahead")
QUICK_S = SECONDS[0]  # nearly all answers are below it, and are counted without looking for their bucket

HEAD = re.compile(
    rb"""
    (?: GET | HEAD ) [ ] / ( [A-Za-z0-9_-]++ )
    (?: [?] [A-Za-z0-9._~!$&'()*+,;=:@/?%-]*+ )?+
    [ ] HTTP/1[.]1 \r\n
    (?> (?:
        (?! (?i: content-length | transfer-encoding | expect | upgrade ) : )
        (?! (?i: connection ) : (?! [ \t]* (?i: keep-alive ) \r\n ) )
        (?: (?i: referer ) : [ \t]*+ ( [\t\x20-\x7e]*+ )
          | (?i: user-agent ) : [ \t]*+ ( [\t\x20-\x7e]*+ )
          | [A-Za-z0-9!#$%&'*+.^_`|~-]++ : [\t\x20-\x7e]*+
        ) \r\n
    )* )
    \r\n
    """,
    re.VERBOSE,
)
"""A whole plain head: its code, its last Referer, its last User-Agent. Nothing in it is tried more than twice, so
it takes time in proportion. (`(?> … )`, as in `heads.py`: `)*+` was faulty before Python 3.11.5.)"""

FORWARDED = re.compile(rb"\r\n(?i:x-forwarded-for):([^\r]*)")

_END_OF_HEAD = len(b"\r\n\r\n")
_G = ord("G")
_NOT_HERE = (b"", b"")


@dataclass(slots=True)
class LookUp:
    """A link that is being looked for: the request, its turn, and what will be found."""

    head: re.Match[bytes]
    code: str
    client: str
    found: asyncio.Future[CachedLink]
    began: float = field(default_factory=monotonic)


class Links(Protocol):
    """What the fast path needs of the cache."""

    def entry(self, code: str) -> Entry | None:
        """What L1 has."""

    def look_up(self, code: str) -> asyncio.Future[CachedLink]:
        """What Redis has, or the shard."""


class FastPath:
    """What the connections of one worker share. `head_bytes_max` is Sanic's limit: a head, with the empty line that
    ends it, is shorter than that and four bytes."""

    def __init__(
        self,
        links: Links,
        fair_queue: FairQueue,
        tally: Tally,
        blocked: Blocklist,
        clock_ms: Callable[[], int],
        create: Callable[[WholeRequest], Awaitable[HTTPResponse]],
        loop: asyncio.AbstractEventLoop,
        *,
        head_bytes_max: int,
        proxies_count: int,
    ) -> None:
        self.reach = head_bytes_max - 1 + _END_OF_HEAD
        self._entry = links.entry
        self._look_up = links.look_up
        self._fair_queue = fair_queue
        self._record = tally.record
        self._blocked = blocked
        self._proxies_count = proxies_count
        self._clock_ms = clock_ms
        self.create = create
        self._loop = loop
        self._answered = 0
        self._looked_up = 0  # of those answered
        self._created = 0
        self._slow = 0  # of those answered
        self._quick_s = 0.0  # of all others together

    def may_be_shut_out(self, peer: str) -> bool:
        """Whether Sanic has to look at the requests that come from the address `peer`."""
        if not self._blocked:
            return False
        return self._proxies_count > 0 or self._blocked.seconds_left(client_address(peer, None, 0)) > 0

    def answer(self, head: re.Match[bytes]) -> bytes | None:
        """The redirect that a match of HEAD asks for if L1 has it, its click counted; None if it has not, or if it
        is for Sanic to answer."""
        code = head[1].decode("ascii")
        entry = self._entry(code)
        return None if entry is None else self._redirect(head, code, entry)

    def look_up(self, head: re.Match[bytes], peer: str) -> LookUp | None:
        """Begins to look for a link that L1 does not know; None if it is for Sanic to answer."""
        code = head[1].decode("ascii")
        if self._entry(code) is not None or is_reserved(code) or not is_code(code):
            return None
        client = client_address(peer, self._forwarded(head), self._proxies_count)
        if not self._fair_queue.try_acquire(client):
            return None
        return LookUp(head, code, client, self._look_up(code))

    def end_turn(self, asked: LookUp) -> None:
        """To be called once for each look-up that has ended, also if nobody waits for it."""
        self._fair_queue.end(asked.client)

    def looked_up(self, asked: LookUp) -> bytes | None:
        """As `answer`, for a link that has been found; None also if it was not."""
        if asked.found.cancelled() or asked.found.exception() is not None:
            return None
        entry = self._entry(asked.code) or Entry.of(asked.found.result())
        return self._redirect(asked.head, asked.code, entry)

    def _forwarded(self, head: re.Match[bytes]) -> str | None:
        """X-Forwarded-For as Sanic's path has it, if it counts."""
        if not self._proxies_count:
            return None
        return b",".join(value.lstrip() for value in FORWARDED.findall(head[0])).decode("ascii")

    def _redirect(self, head: re.Match[bytes], code: str, entry: Entry) -> bytes | None:
        frame = entry.frame
        if frame is None:
            frame = entry.frame = _frame(code, entry)
        if frame is _NOT_HERE:
            return None
        expires_at_ms = entry.expires_at_ms
        if expires_at_ms is not None and expires_at_ms <= self._clock_ms():
            return None
        if head.string[head.start()] == _G:
            self._record(code, referrer_of(head[2]), browser_of(head[3]))
        return entry.url.join(frame)

    def answered(self, count: int, seconds: float) -> None:
        """Counts the answers of one packet, each of which took `seconds`."""
        self._settle_soon()
        self._answered += count
        if seconds < QUICK_S:
            self._quick_s += count * seconds
        else:
            self._slow += count
            _AHEAD.observe_many(count, seconds)

    def answered_late(self, seconds: float) -> None:
        """Counts the answer of a link that was looked up."""
        self._looked_up += 1
        self.answered(1, seconds)

    def created(self) -> None:
        """Counts the answer to a create."""
        self._settle_soon()
        self._created += 1

    def _settle_soon(self) -> None:
        if not self._answered and not self._created:
            self._loop.call_later(SETTLE_S, self.settle)

    def settle(self) -> None:
        """Tells the metrics what was answered since the last time."""
        answered, self._answered = self._answered, 0
        looked_up, self._looked_up = self._looked_up, 0
        created, self._created = self._created, 0
        _AHEAD.observe_quick(answered - self._slow, self._quick_s)
        self._slow, self._quick_s = 0, 0.0
        _AHEAD.settle()
        REDIRECTED.inc(answered)
        FROM_L1.inc(answered - looked_up)
        REDIRECTS_AHEAD.inc(answered)
        CREATES_AHEAD.inc(created)


def _frame(code: str, entry: Entry) -> tuple[bytes, bytes]:
    """What stands around the address in the answer; `_NOT_HERE` if the link is no redirect, or none of ours."""
    if not entry.version or entry.deleted or is_reserved(code):
        return _NOT_HERE
    try:
        entry.url.decode("ascii")
        return redirect_frame(entry.redirect_status)
    except ValueError:  # a row that no create of ours has written: Sanic's path says what it is
        return _NOT_HERE


class FastProtocol(BoundedProtocol):
    """Sanic's protocol, within its bounds, behind the fast path, which is `app.ctx.fast_path`."""

    __slots__ = ("_creating", "_fast", "_held", "_is_free")

    def __init__(self, *, app: Any, **others: Any) -> None:
        super().__init__(app=app, **others)
        self._fast: FastPath = app.ctx.fast_path
        self._is_free = True
        self._held: bytearray | None = None  # what has come while an answer is waited for; None if none is
        self._creating: asyncio.Task[None] | None = None

    async def receive_more(self) -> None:
        """Sanic's task waits for bytes; between two requests it has none in hand, in any other place it has."""
        assert self._http is not None
        # Between an answer and the end of a body that nobody wanted the stage is IDLE too, but a request is there.
        self._is_free = self._http.stage is Stage.IDLE and self._http.request is None
        await super().receive_more()  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Answers what it can; the rest, whole, is Sanic's."""
        if self._held is not None:
            self._held += data
            self.transport.pause_reading()  # type: ignore[union-attr]
            return
        if self._is_free and not self._is_refused:
            done = self._answer(data)
            if done == len(data):
                return
            self._is_free = False
            data = data[done:]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As Sanic's: with its client a create goes too."""
        if self._creating is not None:
            self._creating.cancel()
        super().connection_lost(exc)

    def close_if_idle(self) -> bool:
        """As Sanic's; who waits for an answer is not idle."""
        return self._held is None and super().close_if_idle()

    def _answer(self, data: bytes) -> int:
        """Answers the plain requests with which `data` begins; returns how many bytes are no longer Sanic's."""
        fast = self._fast
        assert self.transport is not None and self.conn_info is not None
        if fast.may_be_shut_out(self.conn_info.client_ip):
            return 0
        at, end = 0, len(data)
        began, count = monotonic(), 0
        while at < end and self._can_write.is_set():
            head = HEAD.match(data, at, at + fast.reach)
            if head is None:
                if self._create(data, at):
                    at = end
                break
            answer = fast.answer(head)
            if answer is None:
                if self._look_up(head, data):
                    at = end
                break
            self.transport.write(answer)
            at = head.end()
            count += 1
        if at:
            self._time = now = monotonic()  # from which Sanic's keep-alive time-out counts
            if count:
                fast.answered(count, now - began)
        return at

    def _look_up(self, head: re.Match[bytes], data: bytes) -> bool:
        """Whether the link is being looked for; then all of `data` from the head on waits for it."""
        assert self.conn_info is not None
        asked = self._fast.look_up(head, self.conn_info.client_ip)
        if asked is None:
            return False
        self._held = bytearray(data[head.end() :])
        asked.found.add_done_callback(partial(self._looked_up, asked))
        return True

    def _looked_up(self, asked: LookUp, found: asyncio.Future[CachedLink]) -> None:
        self._fast.end_turn(asked)
        held = self._taken_up()
        if held is None:
            return
        assert self.transport is not None and self.conn_info is not None
        answer = self._fast.looked_up(asked)
        if answer is None:
            hand_over(self.conn_info, found)
            self._is_free = False
            super().data_received(asked.head[0] + held)
            return
        self.transport.write(answer)
        self._time = now = monotonic()
        self._fast.answered_late(now - asked.began)
        if held:
            self.data_received(held)

    def _create(self, data: bytes, at: int) -> bool:
        """Whether a link is being created; then all of `data` that follows waits for the answer."""
        head = POST.match(data, at, at + self._fast.reach)
        request = None if head is None else whole_request(head, data, self)
        if head is None or request is None:
            return False
        self._held = bytearray(data[head.end() + len(request.body) :])
        self._creating = self.loop.create_task(self._carry_out(request))
        return True

    async def _carry_out(self, request: WholeRequest) -> None:
        try:
            answer = await self._fast.create(request)
        except asyncio.CancelledError:
            if self.transport is not None:
                # Counted as any request of a client that goes away.
                self.app.error_handler.response(request, RequestCancelled())  # type: ignore[no-untyped-call]
            raise
        self._creating = None
        held = self._taken_up()
        if held is None:
            return
        assert self.transport is not None
        self._fast.created()
        keep_alive = self.http is None or self.http.keep_alive  # not if the worker has begun to end
        self.transport.write(answer_bytes(answer, keep_alive=keep_alive))
        self._time = monotonic()
        if not keep_alive:
            self.close()
        elif held:
            self.data_received(held)

    def _taken_up(self) -> bytes | None:
        """What has come while an answer was waited for; None if nobody is there any more to hear it."""
        held, self._held = self._held, None
        assert held is not None
        if self.transport is None or self.transport.is_closing():
            return None
        self.transport.resume_reading()
        return bytes(held)
