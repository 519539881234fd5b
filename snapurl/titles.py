"""Titles of targets: fetches the page that a URL leads to, and returns what its <title> says.

Theory. Whoever may change links chooses the URL, so this is a request that strangers can aim. It goes to public
addresses alone: a name is resolved here, once, an address that is not public is refused, and the connection is made
to the very address that was looked at, so that no second answer of the name server counts. Every redirect is
checked in the same way. Time, bytes, redirects and the number of fetches at once are bounded. What is found
is text for people: control characters, and those that turn text around, are left out.
"""

from __future__ import annotations

import asyncio
import codecs
import io
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html.parser import HTMLParser
from http.client import HTTPException, HTTPResponse, IncompleteRead
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from snapurl.errors import NoTitle, Unavailable
from snapurl.telemetry.metrics import TITLE_FETCHES
from snapurl.urls import DEFAULT_PORTS, UrlPolicy, UrlRefused

FETCHES_MAX = 4  # at once, per worker; then 503
FETCH_S_MAX = 8.0  # for the whole fetch, redirects included
REDIRECTS_MAX = 3
ANSWER_BYTES_MAX = 262_144  # of each answer, its head included: a title that comes later is not found
TITLE_BYTES_MAX = 4_096
TITLE_CHARS_MAX = 300  # of what is returned; the limit of a link's title
PORT_MIN = 1_024  # besides 80 and 443: services of other protocols are below it

REDIRECTS = (301, 302, 303, 307, 308)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset=["']?([a-z0-9_-]{1,40})""", re.IGNORECASE)
_SAFE_CHARSET = re.compile(
    r"(utf-?8|us-ascii|latin-?1|(iso-?8859|windows|cp|koi8|euc|gb|big|shift|sjis)[a-z0-9_-]*)"
)
_TITLE = re.compile(rb"<title[\s>]", re.IGNORECASE)
# Addresses that carry another one: a public one of these may lead to one that is not.
_CARRIERS = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises OSError."""


def is_public(address: str) -> bool:
    """Whether an IP address is on the public Internet, and stands for itself alone."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in network for network in _CARRIERS):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


async def resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    location: str
    media: str
    charset: str
    body: bytes


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
            if answer.status not in REDIRECTS or not answer.location:
                return _title_of(answer)
            try:
                url = self._urls.check(urljoin(url, answer.location))
            except (UrlRefused, ValueError):
                raise NoTitle("the target redirects to what no link may lead to", cause="refused") from None
        raise NoTitle(f"the target redirects more than {REDIRECTS_MAX} times", cause="refused")

    async def _get(self, url: str) -> _Answer:
        parts = urlsplit(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme]
        if port < PORT_MIN and port not in DEFAULT_PORTS.values():
            raise NoTitle(f"pages at port {port} are not fetched", cause="refused")
        try:
            addresses = await self._resolve(parts.hostname or "", port)
        except (OSError, UnicodeError):
            raise NoTitle("the host of the target is not known", cause="failed") from None
        if not addresses or not all(map(self._is_allowed, addresses)):
            raise NoTitle("the target is not on the public Internet", cause="refused")
        try:
            return _parse(await self._exchange(parts, addresses[0], port))
        except (OSError, ssl.SSLError, HTTPException, ValueError):
            raise NoTitle("the target does not answer as a web server does", cause="failed") from None

    async def _exchange(self, parts: SplitResult, address: str, port: int) -> bytes:
        """Returns what the server answers until it ends or its title has arrived: ANSWER_BYTES_MAX at most."""
        secure = {}
        if parts.scheme == "https":
            secure = {"ssl": _tls(), "server_hostname": parts.hostname}
        reader, writer = await asyncio.open_connection(address, port, **secure)  # type: ignore[arg-type]
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            host = parts.netloc.rpartition("@")[2]
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: SnapURL (title of a link)\r\n"
                "Accept: text/html\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            found = bytearray()
            while len(found) < ANSWER_BYTES_MAX:
                some = await reader.read(16_384)
                if not some:
                    break
                begin = max(0, len(found) - 8)
                found += some
                if b"</title" in found[begin:].lower():
                    break
            return bytes(found[:ANSWER_BYTES_MAX])
        finally:
            writer.transport.abort()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Received:
    """What was received, as `HTTPResponse` wants it: a socket that has a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parse(data: bytes) -> _Answer:
    """Parses an answer that may have been cut. Raises HTTPException, ValueError."""
    response = HTTPResponse(_Received(data))  # type: ignore[arg-type]
    response.begin()
    try:
        body = response.read()
    except IncompleteRead as error:
        body = error.partial
    headers = response.headers
    charset = headers.get_content_charset() or ""
    return _Answer(response.status, headers.get("location", ""), headers.get_content_type(), charset, body)


def _title_of(answer: _Answer) -> str:
    if answer.status != 200:
        raise NoTitle(f"the target answers {answer.status}", cause="failed")
    if answer.media not in ("text/html", "application/xhtml+xml"):
        raise NoTitle("the target is no HTML page", cause="none")
    begin = _TITLE.search(answer.body)
    title = (
        "" if begin is None else _text_of(answer.body[begin.start() :][:TITLE_BYTES_MAX], _charset_of(answer))
    )
    if not title:
        raise NoTitle("the page has no title", cause="none")
    return title


def _charset_of(answer: _Answer) -> str:
    """Returns the character set of a page: a plain one, since there are codecs that take quadratic time."""
    declared = _CHARSET.search(answer.body[:2_048])
    for name in (answer.charset, declared[1].decode() if declared else ""):
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
