"""The fast path: answers a redirect or a create where its bytes arrive, without Sanic.

Theory. Sanic spends its time on making a request object, finding a route and making a response. `GET /{code}` of a
link in L1 needs none of that. So this protocol examines arriving bytes before Sanic does. It answers the requests
that it fully understands. From the first other request on, all bytes go to Sanic unchanged, as if this module did
not exist. So the fast path never refuses a request, and a head that is still incomplete is left to Sanic, with
everything after it until that request has been answered.

The way of a redirect, in order:

1. `FastProtocol.data_received`: Sanic is between two requests, so the packet begins with a head.
2. `FastProtocol._respond` matches `REDIRECT_HEAD` and asks `FastPath.redirect_from_l1`.
3. L1 has the link: `FastPath._redirect` counts the click (`self._record_click`) and returns the response.
4. L1 has not: `FastPath.start_lookup` acquires a permit of the fair queue and calls `LinkCache.lookup`, which
   has one load per code in flight. Meanwhile bytes that arrive on the connection are buffered, and reading from
   it pauses.
5. `FastProtocol._finish_lookup`: the link was found, so it continues as in step 3. Otherwise the request goes to
   Sanic, with the result of the look-up (`redirect.hand_over`): nothing is looked up twice, and one place
   (`redirect.follow`) makes all refusals.

A create that arrives complete in one packet is handled here as well, by the handler that Sanic would have called
(`create.py` has the conditions). The connection is buffered in the same way. If the client disconnects, the create
is cancelled, as on Sanic's path.

A redirect is answered here if all of this holds, otherwise Sanic answers it:

- *Sanic is between two requests* (`_is_free`): its task waits for the first byte of a head, or has not started,
  since the request arrived together with its connection. Otherwise the bytes may belong to a body, or an earlier
  response has yet to be sent.
- *The client reads* (`_can_write`): if it does not, Sanic holds its requests back, and then stops reading.
- *The head is plain* (`plain_heads.py`) and *not longer than Sanic accepts* (`match_bytes_max`).
- *The client is not blocked* for too many requests to missing links. Only while the block list is not empty is
  the client of a redirect determined; behind a proxy this means to search the head for the header that names it.
- *The link is in L1*, where changes invalidate it, or is found by the look-up; it *is not deleted and not
  expired, and has no options* (`model.LinkOptions`). A look-up is started only if a permit of the fair queue is
  free; otherwise Sanic's path waits for one.
- *The link does not lead to the host that was asked*: it may be a loop, which Sanic's path refuses.
- *The code is not reserved*: a word may have been reserved after a link had taken it.

The part of a response around the URL is one object per status, which all links with that status share
(`FastPath._frames`). Once per second, when a packet arrives, `renew_date` writes the new Date into these objects.
So Date costs one comparison per packet, and no timer.

Metrics and clicks are those of Sanic's path: a click per GET with what its head says (`wire/said.py`), a redirect
and a cache answer per request. The metrics get them in one sum every FLUSH_S.

The time of a request runs from the arrival of its bytes until its response is written. Requests of one packet all
take as long as the packet, since their responses leave together. Timing costs one reading of the clock and an
addition. Time that the bytes wait for the event loop is not included: `snapurl_loop_lag_seconds` shows that.
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

from snapurl.addresses import EMBEDDED, Clients
from snapurl.cache.local import Entry
from snapurl.cache.reader import FROM_L1
from snapurl.clicks.origins import Origins
from snapurl.clicks.tally import Said, Tally
from snapurl.codes import is_code, is_reserved
from snapurl.http.fastpath.create import WholeRequest, response_bytes, whole_request
from snapurl.http.fastpath.plain_heads import CREATE_HEAD, REDIRECT_HEAD
from snapurl.http.redirect import REDIRECTED, hand_over, redirect_frame
from snapurl.http.wire.connections import BoundedProtocol
from snapurl.http.wire.dates import DateClock
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.http.wire.heads import client_of_head
from snapurl.http.wire.loop_share import LoopShare
from snapurl.http.wire.pace import is_paced
from snapurl.limits import Blocklist
from snapurl.model import CachedLink
from snapurl.telemetry.metrics import (
    CREATES_FAST_PATH,
    REDIRECT_SECONDS,
    REDIRECTS_FAST_PATH,
    SECONDS,
    timing,
)

FLUSH_S = 0.1  # by which the metrics may lag
_FAST_PATH_SECONDS = timing(REDIRECT_SECONDS, "ahead")
QUICK_S = SECONDS[0]  # nearly all redirects are faster: they are counted without a search for their bucket

_END_OF_HEAD = len(b"\r\n\r\n")
_G, _S = ord("G"), ord("s")
_HTTP, _HTTPS = len(b"http://"), len(b"https://")
FOR_SANIC: list[bytes] = []


@dataclass(slots=True)
class Lookup:
    """A redirect whose link is being looked up: its head and peer, the client that holds a permit, the future
    link."""

    head: re.Match[bytes]
    code: str
    peer: str
    client: str
    found: asyncio.Future[CachedLink]
    began: float = field(default_factory=monotonic)


class Links(Protocol):
    """The part of `LinkCache` that the fast path uses."""

    def entry(self, code: str) -> Entry | None:
        """Returns what L1 has."""

    def lookup(self, code: str) -> asyncio.Future[CachedLink]:
        """Returns the one load of this code: from Redis, else from the shard."""


class FastPath:
    """The part of the fast path that the connections of one worker share.

    `head_bytes_max` is Sanic's limit of a head without the empty line that ends it.
    """

    def __init__(
        self,
        links: Links,
        fair_queue: FairQueue,
        tally: Tally,
        blocked: Blocklist,
        clients: Clients,
        origins: Origins,
        clock_ms: Callable[[], int],
        create: Callable[[WholeRequest], Awaitable[HTTPResponse]],
        loop: asyncio.AbstractEventLoop,
        date: DateClock,
        *,
        head_bytes_max: int,
    ) -> None:
        self.match_bytes_max = head_bytes_max - 1 + _END_OF_HEAD
        self._entry = links.entry
        self._lookup = links.lookup
        self._fair_queue = fair_queue
        self._record_click = tally.record
        self._blocked = blocked
        self._clients = clients
        self._origin = origins.of_head
        self._are_peers = origins.are_peers
        self._clock_ms = clock_ms
        self.create = create
        self._loop = loop
        self._date = date
        self._frames: dict[int, list[bytes]] = {}  # by status; at most one per status that redirects
        self.dated_until_s = 0.0  # monotonic; until then the Date in `_frames` is right
        self._redirects = 0  # since the last flush, as all below
        self._lookups = 0  # redirects whose link was not in L1
        self._creates = 0
        self._slow = 0  # redirects that took QUICK_S or longer
        self._quick_s = 0.0  # seconds that all other redirects took

    def renew_date(self, now_s: float) -> None:
        """Writes the Date of the monotonic time `now_s` into the prepared parts of responses, if it has changed."""
        if now_s < self.dated_until_s:
            return
        date = self._date.at(now_s)
        for status, frame in self._frames.items():
            frame[:] = redirect_frame(status, date)
        self.dated_until_s = self._date.until_s

    def date_at(self, now_s: float) -> str:
        """Returns the value of Date at the monotonic time `now_s`."""
        return self._date.at(now_s)

    @property
    def answer(self) -> Callable[[re.Match[bytes], str], bytes | None]:
        """`redirect_from_l1`; while any client is blocked, a form of it that leaves blocked ones to Sanic."""
        return self._redirect_unless_blocked if self._blocked else self.redirect_from_l1

    def _redirect_unless_blocked(self, head: re.Match[bytes], peer: str) -> bytes | None:
        return (
            None
            if self._is_blocked(client_of_head(self._clients, peer, head[0]))
            else self.redirect_from_l1(head, peer)
        )

    def redirect_from_l1(self, head: re.Match[bytes], peer: str) -> bytes | None:
        """Returns the response to a match of REDIRECT_HEAD from `peer` and counts its click.

        Returns None if L1 does not have the link or Sanic has to answer.
        """
        code = head[1].decode("ascii")
        entry = self._entry(code)
        return None if entry is None else self._redirect(head, peer, code, entry)

    def start_lookup(self, head: re.Match[bytes], peer: str) -> Lookup | None:
        """Starts to look up a link that is not in L1; returns None if Sanic has to answer."""
        code = head[1].decode("ascii")
        if self._entry(code) is not None or is_reserved(code) or not is_code(code):
            return None
        return self._start_lookup(head, peer, code)

    def _start_lookup(self, head: re.Match[bytes], peer: str, code: str) -> Lookup | None:
        client = client_of_head(self._clients, peer, head[0])
        if self._is_blocked(client) or not self._fair_queue.try_acquire(client):
            return None
        return Lookup(head, code, peer, client, self._lookup(code))

    def release_permit(self, lookup: Lookup) -> None:
        """Must be called once when a look-up has ended, also if its client has disconnected."""
        self._fair_queue.release(lookup.client)

    def redirect_from_lookup(self, lookup: Lookup) -> bytes | None:
        """As `redirect_from_l1`, for a look-up that has ended; returns None also if it found no link."""
        if lookup.found.cancelled() or lookup.found.exception() is not None:
            return None
        entry = self._entry(lookup.code) or Entry.of(lookup.found.result())
        return self._redirect(lookup.head, lookup.peer, lookup.code, entry)

    def _is_blocked(self, client: str) -> bool:
        """Whether a client is blocked, be it for what it opens or for what pages make its browser fetch."""
        if not self._blocked:
            return False
        left_s = self._blocked.seconds_left
        return left_s(client) > 0 or left_s(EMBEDDED + client) > 0

    def _redirect(self, head: re.Match[bytes], peer: str, code: str, entry: Entry) -> bytes | None:
        """Returns the response and counts the click of a GET; returns None if the link does not redirect."""
        frame = entry.frame
        if frame is None:
            frame = entry.frame = self._frame(code, entry)
        if frame is FOR_SANIC:
            return None
        expires_at_ms = entry.expires_at_ms
        if expires_at_ms is not None and expires_at_ms <= self._clock_ms():
            return None
        url = entry.url
        if url.startswith(head[3], _HTTPS if url[4] == _S else _HTTP) and head[3]:
            return None
        if head.string[head.start()] == _G:
            origin = peer if self._are_peers else self._origin(peer, head[0])
            said: Said = head.group(2, 4, 5, 6, 7)  # type: ignore[assignment]  # as many as it has elements
            self._record_click(code, said, origin, url)
        return url.join(frame)

    def _frame(self, code: str, entry: Entry) -> list[bytes]:
        """Returns the response before and after its Location; `FOR_SANIC` if Sanic has to answer."""
        terms = entry.terms
        if not terms.version or terms.deleted or terms.options is not None or is_reserved(code):
            return FOR_SANIC
        if not entry.url.isascii() or not entry.url.startswith((b"http://", b"https://")):
            return FOR_SANIC  # a row that was written by other means
        status = terms.redirect_status
        try:
            return self._frames.get(status) or self._frames.setdefault(
                status, redirect_frame(status, self._date.at(monotonic()))
            )
        except ValueError:  # a row that was written by other means: Sanic's path reports the error
            return FOR_SANIC

    def count_redirects(self, count: int, seconds: float) -> None:
        """Counts the redirects of one packet, each of which took `seconds`."""
        self._flush_soon()
        self._redirects += count
        if seconds < QUICK_S:
            self._quick_s += count * seconds
        else:
            self._slow += count
            _FAST_PATH_SECONDS.observe_many(count, seconds)

    def count_lookup(self, seconds: float) -> None:
        """Counts a redirect whose link was looked up."""
        self._lookups += 1
        self.count_redirects(1, seconds)

    def count_create(self) -> None:
        """Counts a response to a create, whatever its status."""
        self._flush_soon()
        self._creates += 1

    def _flush_soon(self) -> None:
        if not self._redirects and not self._creates:
            self._loop.call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Adds what was counted since the last flush to the metrics."""
        redirects, self._redirects = self._redirects, 0
        lookups, self._lookups = self._lookups, 0
        creates, self._creates = self._creates, 0
        _FAST_PATH_SECONDS.observe_quick(redirects - self._slow, self._quick_s)
        self._slow, self._quick_s = 0, 0.0
        _FAST_PATH_SECONDS.flush()
        REDIRECTED.inc(redirects)
        FROM_L1.inc(redirects - lookups)
        REDIRECTS_FAST_PATH.inc(redirects)
        CREATES_FAST_PATH.inc(creates)


class FastProtocol(BoundedProtocol):
    """Sanic's protocol, bounded, with the fast path `app.ctx.fast_path` in front of it."""

    __slots__ = ("_buffered", "_create_share", "_create_task", "_fast", "_is_free")

    def __init__(self, *, app: Any, **others: Any) -> None:
        super().__init__(app=app, **others)
        self._fast: FastPath = app.ctx.fast_path
        self._create_share: LoopShare = app.ctx.create_share
        self._is_free = True
        self._buffered: bytearray | None = (
            None  # arrived during a look-up or create; None if there is neither
        )
        self._create_task: asyncio.Task[None] | None = None

    async def receive_more(self) -> None:
        """Called by Sanic's task to wait for bytes: notes whether it is between two requests."""
        assert self._http is not None
        # The stage is also IDLE while Sanic discards the rest of a body after its response, but then it has a
        # request.
        self._is_free = self._http.stage is Stage.IDLE and self._http.request is None
        await super().receive_more()  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Answers the plain requests at the start of `data`; passes the rest to Sanic unchanged."""
        if self._buffered is not None:
            self._buffered += data
            self.transport.pause_reading()  # type: ignore[union-attr]
            return
        if self._is_free and not self._is_refused:
            done = self._respond(data)
            if done == len(data):
                return
            self._is_free = False
            data = data[done:]
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As Sanic's; also cancels a create, since nobody would receive the response."""
        if self._create_task is not None:
            self._create_task.cancel()
        super().connection_lost(exc)

    def close_if_idle(self) -> bool:
        """As Sanic's; a connection with a look-up or create in flight is not idle."""
        return self._buffered is None and super().close_if_idle()

    def _respond(self, data: bytes) -> int:
        """Answers the plain requests at the start of `data`; returns the number of bytes that are dealt with."""
        fast = self._fast
        assert self.transport is not None and self.conn_info is not None
        redirect, peer = fast.answer, self.conn_info.client_ip
        at, end = 0, len(data)
        began, count = monotonic(), 0
        if began >= fast.dated_until_s:
            fast.renew_date(began)
        while at < end and self._can_write.is_set():
            head = REDIRECT_HEAD.match(data, at, at + fast.match_bytes_max)
            if head is None:
                if self._start_create(data, at):
                    at = end
                break
            response = redirect(head, peer)
            if response is None:
                if self._start_lookup(head, data):
                    at = end
                break
            self.transport.write(response)
            at = head.end()
            count += 1
        if at:
            self._time = now = monotonic()  # restarts Sanic's keep-alive time-out
            if count:
                fast.count_redirects(count, now - began)
        return at

    def _start_lookup(self, head: re.Match[bytes], data: bytes) -> bool:
        """Starts a look-up and buffers what follows the head in `data`; returns False if Sanic has to answer."""
        assert self.conn_info is not None
        lookup = self._fast.start_lookup(head, self.conn_info.client_ip)
        if lookup is None:
            return False
        self._buffered = bytearray(data[head.end() :])
        lookup.found.add_done_callback(partial(self._finish_lookup, lookup))
        return True

    def _finish_lookup(self, lookup: Lookup, found: asyncio.Future[CachedLink]) -> None:
        """Sends the redirect, or passes the request to Sanic; then continues with the buffered bytes."""
        self._fast.release_permit(lookup)
        buffered = self._stop_buffering()
        if buffered is None:
            return
        assert self.transport is not None and self.conn_info is not None
        self._fast.renew_date(monotonic())
        response = self._fast.redirect_from_lookup(lookup)
        if response is None:
            hand_over(self.conn_info, found)
            self._is_free = False
            super().data_received(lookup.head[0] + buffered)
            return
        self.transport.write(response)
        self._time = now = monotonic()
        self._fast.count_lookup(now - lookup.began)
        if buffered:
            self.data_received(buffered)

    def _start_create(self, data: bytes, at: int) -> bool:
        """Starts a create and buffers what follows it in `data`; returns False if Sanic has to answer."""
        head = CREATE_HEAD.match(data, at, at + self._fast.match_bytes_max)
        request = None if head is None else whole_request(head, data, self)
        if head is None or request is None:
            return False
        self._buffered = bytearray(data[head.end() + len(request.body) :])
        self._create_task = self.loop.create_task(self._run_create(request))
        return True

    async def _run_create(self, request: WholeRequest) -> None:
        """Sends the response of the create handler; then continues with the buffered bytes."""
        try:
            await self._create_share.begin(self.client_of(request.head))
            response = await self._fast.create(request)
            if is_paced(request, response.status):
                await self.keep_pace(request.head)
        except asyncio.CancelledError:
            if self.transport is not None:
                # Counts it like any other request of a client that disconnects.
                self.app.error_handler.response(request, RequestCancelled())  # type: ignore[no-untyped-call]
            raise
        self._create_task = None
        buffered = self._stop_buffering()
        if buffered is None:
            return
        assert self.transport is not None
        self._fast.count_create()
        keep_alive = self.http is None or self.http.keep_alive  # False once the worker shuts down
        self._time = now = monotonic()
        self.transport.write(response_bytes(response, self._fast.date_at(now), keep_alive=keep_alive))
        if not keep_alive:
            self.close()
        elif buffered:
            self.data_received(buffered)

    def _stop_buffering(self) -> bytes | None:
        """Resumes reading and returns the buffered bytes; returns None if the client has disconnected."""
        buffered, self._buffered = self._buffered, None
        assert buffered is not None
        if self.transport is None or self.transport.is_closing():
            return None
        self.transport.resume_reading()
        return bytes(buffered)
