"""Titles of targets: fetches the page that a URL leads to, and returns what its <title> says.

Theory. `outbound.py` says where such a request may go. Every redirect is checked in the same way. Time, bytes,
redirects and the number of fetches at once are bounded. What is found is text for people: control characters, and
those that turn text around, are left out.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Callable
from html.parser import HTMLParser
from urllib.parse import urljoin

from snapurl.errors import NoTitle, Unavailable
from snapurl.outbound import (
    OutboundResponse,
    Resolve,
    TargetRefused,
    TargetUnreachable,
    exchange,
    is_public,
    resolve,
)
from snapurl.telemetry.metrics import TITLE_FETCHES
from snapurl.urls import UrlPolicy, UrlRefused

FETCHES_MAX = 4  # at once, per worker; then 503
FETCH_S_MAX = 8.0  # for the whole fetch, redirects included
REDIRECTS_MAX = 3
ANSWER_BYTES_MAX = 262_144  # of each answer, its head included: a title that comes later is not found
TITLE_BYTES_MAX = 4_096
TITLE_CHARS_MAX = 300  # of what is returned; the limit of a link's title

REDIRECTS = (301, 302, 303, 307, 308)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset=["']?([a-z0-9_-]{1,40})""", re.IGNORECASE)
_SAFE_CHARSET = re.compile(
    r"(utf-?8|us-ascii|latin-?1|(iso-?8859|windows|cp|koi8|euc|gb|big|shift|sjis)[a-z0-9_-]*)"
)
_TITLE = re.compile(rb"<title[\s>]", re.IGNORECASE)
_HEADERS = {"User-Agent": "SnapURL (title of a link)", "Accept": "text/html"}


class TitleFetcher:
    """Fetches titles of one worker. `urls` says which URLs may be followed, `is_allowed` which addresses."""

    def __init__(
        self,
        urls: UrlPolicy,
        resolve: Resolve = resolve,
        is_allowed: Callable[[str], bool] = is_public,
    ) -> None:
        self._urls = urls
        self._resolve = resolve
        self._is_allowed = is_allowed
        self._running = 0

    async def fetch(self, url: str) -> str:
        """Returns the title of the page that `url` leads to. Raises NoTitle, which says why there is none, and
        Unavailable while too many are fetched."""
        if self._running >= FETCHES_MAX:
            TITLE_FETCHES.labels("too many").inc()
            raise Unavailable("too many titles are being fetched", is_public=True, retry_after_s=1.0)
        self._running += 1
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                title = await self._follow(url)
        except TimeoutError:
            TITLE_FETCHES.labels("failed").inc()
            raise NoTitle(f"the target did not answer within {FETCH_S_MAX:g} s") from None
        except NoTitle as refusal:
            TITLE_FETCHES.labels(refusal.cause).inc()
            raise
        finally:
            self._running -= 1
        TITLE_FETCHES.labels("found").inc()
        return title

    async def _follow(self, url: str) -> str:
        for _ in range(REDIRECTS_MAX + 1):
            answer = await self._get(url)
            location = answer.headers.get("location", "")
            if answer.status not in REDIRECTS or not location:
                return _title_of(answer)
            try:
                url = self._urls.check(urljoin(url, location))
            except (UrlRefused, ValueError):
                raise NoTitle("the target redirects to what no link may lead to", cause="refused") from None
        raise NoTitle(f"the target redirects more than {REDIRECTS_MAX} times", cause="refused")

    async def _get(self, url: str) -> OutboundResponse:
        try:
            return await exchange(
                "GET", url, _HEADERS, b"", bytes_max=ANSWER_BYTES_MAX, is_enough=_has_title,
                resolve=self._resolve, is_allowed=self._is_allowed,
            )  # fmt: skip
        except TargetRefused as refusal:
            raise NoTitle(f"the target {refusal}", cause="refused") from None
        except TargetUnreachable as fault:
            raise NoTitle(f"the target {fault}", cause="failed") from None


def _has_title(found: bytearray, begin: int) -> bool:
    return b"</title" in found[begin:].lower()


def _title_of(answer: OutboundResponse) -> str:
    if answer.status != 200:
        raise NoTitle(f"the target answers {answer.status}", cause="failed")
    if answer.headers.get_content_type() not in ("text/html", "application/xhtml+xml"):
        raise NoTitle("the target is no HTML page", cause="none")
    begin = _TITLE.search(answer.body)
    title = (
        "" if begin is None else _text_of(answer.body[begin.start() :][:TITLE_BYTES_MAX], _charset_of(answer))
    )
    if not title:
        raise NoTitle("the page has no title", cause="none")
    return title


def _charset_of(answer: OutboundResponse) -> str:
    """Returns the character set of a page: a plain one, since there are codecs that take quadratic time."""
    declared = _CHARSET.search(answer.body[:2_048])
    for name in (answer.headers.get_content_charset() or "", declared[1].decode() if declared else ""):
        if _SAFE_CHARSET.fullmatch(name.lower()):
            try:
                return codecs.lookup(name).name
            except LookupError:
                continue
    return "utf-8"


class _TitleParser(HTMLParser):
    """Collects the text of the first <title>."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._is_inside = self._is_over = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._is_inside = tag == "title" and not self._is_over

    def handle_endtag(self, tag: str) -> None:
        self._is_over = self._is_over or tag == "title"
        self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.text += data


def _text_of(html: bytes, charset: str) -> str:
    """Returns the text of the title that `html` begins with, for people: in one line, without signs that are not
    printed."""
    parser = _TitleParser()
    parser.feed(html.decode(charset, "replace"))
    parser.close()
    words = " ".join(parser.text.replace("\ufffd", "").split())
    text = "".join(sign for sign in words if sign.isprintable())
    return text if len(text) <= TITLE_CHARS_MAX else f"{text[: TITLE_CHARS_MAX - 1]}…"
