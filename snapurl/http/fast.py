"""The fast path: a redirect that this worker already knows, answered where its bytes arrive.

Theory. Sanic spends its time on making a request, finding a route and making a response. None of that is needed for
`GET /{code}` of a link in L1: the answer is ready as bytes. So this protocol looks at what has arrived before Sanic
does. It answers the requests that it wholly understands; from the first one that it does not, everything goes to
Sanic, byte for byte, as if this module did not exist. It therefore never parses twice, never refuses, and keeps no
bytes: a head that is not yet complete is Sanic's, and so is everything until that request has been answered.

A request is answered here if all of this holds, else Sanic answers it:

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
- *The link is in L1*, where each change of it is heard, *is not deleted, and has not expired*.
- *No route of ours has that name*: a word may have been reserved after a link had taken it.

What is counted is what Sanic's path counts: a click per GET, with the host that referred and the browser family; a
redirect and an L1 answer per request in the metrics, which get them in one sum a few times per second.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from time import monotonic
from typing import Any

from sanic.http import Stage
from sanic.server import HttpProtocol

from snapurl.cache.link import CachedLink
from snapurl.cache.local import Entry
from snapurl.cache.reader import FROM_L1
from snapurl.clicks.source import browser_of, referrer_of
from snapurl.clicks.tally import Tally
from snapurl.codes import is_reserved
from snapurl.http.redirect import REDIRECTED, redirect_bytes
from snapurl.limits import Blocklist, client_address
from snapurl.metrics import REDIRECTS_AHEAD

SETTLE_S = 0.1  # for how long the metrics may lag behind

HEAD = re.compile(
    rb"""
    (?: GET | HEAD ) [ ] / ( [A-Za-z0-9_-]++ )
    (?: [?] [A-Za-z0-9._~!$&'()*+,;=:@/?%-]*+ )?+
    [ ] HTTP/1[.]1 \r\n
    (?:
        (?! (?i: content-length | transfer-encoding | expect | upgrade ) : )
        (?! (?i: connection ) : (?! [ \t]* (?i: keep-alive ) \r\n ) )
        (?: (?i: referer ) : [ \t]*+ ( [\t\x20-\x7e]*+ )
          | (?i: user-agent ) : [ \t]*+ ( [\t\x20-\x7e]*+ )
          | [A-Za-z0-9!#$%&'*+.^_`|~-]++ : [\t\x20-\x7e]*+
        ) \r\n
    )*+
    \r\n
    """,
    re.VERBOSE,
)
"""A whole plain head: its code, its last Referer, its last User-Agent. Nothing in it is tried more than twice, so
it takes time in proportion."""

_END_OF_HEAD = len(b"\r\n\r\n")
_G = ord("G")
_NOT_HERE = b""


class FastPath:
    """What the connections of one worker share. `head_bytes_max` is Sanic's limit: a head, with the empty line that
    ends it, is shorter than that and four bytes."""

    def __init__(
        self,
        entry: Callable[[str], Entry | None],
        tally: Tally,
        blocked: Blocklist,
        clock_ms: Callable[[], int],
        loop: asyncio.AbstractEventLoop,
        *,
        head_bytes_max: int,
        proxies_count: int,
    ) -> None:
        self.reach = head_bytes_max - 1 + _END_OF_HEAD
        self._entry = entry
        self._record = tally.record
        self._blocked = blocked
        self._proxies_count = proxies_count
        self._clock_ms = clock_ms
        self._loop = loop
        self._answered = 0

    def may_be_shut_out(self, peer: str) -> bool:
        """Whether Sanic has to look at the requests that come from the address `peer`."""
        if not self._blocked:
            return False
        return self._proxies_count > 0 or self._blocked.seconds_left(client_address(peer, None, 0)) > 0

    def answer(self, head: re.Match[bytes], *, is_click: bool) -> bytes | None:
        """The redirect that a match of HEAD asks for, counted; None if it is for Sanic to answer."""
        code = head[1].decode("ascii")
        entry = self._entry(code)
        if entry is None:
            return None
        answer = entry.answer
        if answer is None:
            answer = entry.answer = _made(code, entry.link)
        if answer is _NOT_HERE:
            return None
        expires_at_ms = entry.link.expires_at_ms
        if expires_at_ms is not None and expires_at_ms <= self._clock_ms():
            return None
        if is_click:
            self._record(code, referrer_of(head[2]), browser_of(head[3]))
        if not self._answered:
            self._loop.call_later(SETTLE_S, self.settle)
        self._answered += 1
        return answer

    def settle(self) -> None:
        """Tells the metrics what was answered since the last time."""
        answered, self._answered = self._answered, 0
        REDIRECTED.inc(answered)
        FROM_L1.inc(answered)
        REDIRECTS_AHEAD.inc(answered)


def _made(code: str, link: CachedLink) -> bytes:
    """The answer as long as this version of the link lives; `_NOT_HERE` if it is no redirect, or none of ours."""
    if link.is_missing or link.deleted or is_reserved(code):
        return _NOT_HERE
    try:
        return redirect_bytes(link.url, link.redirect_status, keep_alive=True)
    except ValueError:  # a row that no create of ours has written: Sanic's path says what it is
        return _NOT_HERE


class FastProtocol(HttpProtocol):
    """Sanic's protocol behind the fast path, which is `app.ctx.fast_path`."""

    __slots__ = ("_fast", "_is_free")

    def __init__(self, *, app: Any, **others: Any) -> None:
        super().__init__(app=app, **others)
        self._fast: FastPath = app.ctx.fast_path
        self._is_free = True

    async def receive_more(self) -> None:
        """Sanic's task waits for bytes; between two requests it has none in hand, in any other place it has."""
        assert self._http is not None
        # Between an answer and the end of a body that nobody wanted the stage is IDLE too, but a request is there.
        self._is_free = self._http.stage is Stage.IDLE and self._http.request is None
        await super().receive_more()  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Answers what it can; the rest, whole, is Sanic's."""
        if self._is_free:
            done = self._answer(data)
            if done == len(data):
                return
            self._is_free = False
            data = data[done:]
        super().data_received(data)

    def _answer(self, data: bytes) -> int:
        """Answers the plain requests with which `data` begins; returns how many bytes they are."""
        fast = self._fast
        assert self.transport is not None and self.conn_info is not None
        if fast.may_be_shut_out(self.conn_info.client_ip):
            return 0
        at, end = 0, len(data)
        while at < end and self._can_write.is_set():
            head = HEAD.match(data, at, at + fast.reach)
            if head is None:
                break
            answer = fast.answer(head, is_click=data[at] == _G)
            if answer is None:
                break
            self.transport.write(answer)
            at = head.end()
        if at:
            self._time = monotonic()  # from which Sanic's keep-alive time-out counts
        return at
