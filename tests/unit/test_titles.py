"""Titles of targets: what is fetched, from where, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from snapurl import titles
from snapurl.errors import NoTitle, Unavailable
from snapurl.outbound import is_public
from snapurl.titles import ANSWER_BYTES_MAX, FETCHES_MAX, TITLE_CHARS_MAX, TitleFetcher
from snapurl.urls import UrlPolicy
from tests.support.waits import unless_hung, until

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><head><title>%b</title>"


@dataclass
class Web:
    """Servers of the names public.example (127.0.0.1) and inside.example (127.0.0.2), which is not public.

    `answers` are bytes by path; None: nothing is answered.
    """

    port: int = 0
    answers: dict[str, bytes | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    addresses: dict[str, Sequence[str]] = field(
        default_factory=lambda: {"public.example": ["127.0.0.1"], "inside.example": ["127.0.0.2"]}
    )

    def url(self, path: str, host: str = "public.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        if host not in self.addresses:
            raise OSError("unknown")
        return self.addresses[host]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        self.asked.append(head)
        answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            writer.close()

    def fetcher(self) -> TitleFetcher:
        return TitleFetcher(
            UrlPolicy(2_000, frozenset()), self.resolve, lambda address: address == "127.0.0.1"
        )


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    found = Web()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()


@pytest.mark.parametrize(
    ("page", "title"),
    [
        (PAGE % b"Spring\n  sale &amp; more", "Spring sale & more"),
        (PAGE % "Größe".encode(), "Größe"),
        (PAGE % "a\u202eb\u2066c\x00d\x1b[0m".encode(), "abcd[0m"),
        (PAGE % (b"x" * 400), "x" * (TITLE_CHARS_MAX - 1) + "…"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<meta charset=iso-8859-1><title>\xe4</title>", "ä"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=punycode\r\n\r\n<title>abc</title>", "abc"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"a\r\n<title>ab \r\nb\r\ncd</title>  \r\n0\r\n\r\n",
            "ab cd",
        ),
    ],
)  # fmt: skip
async def test_a_title_is_text_for_people(web: Web, page: bytes, title: str) -> None:
    """A title is one line of what is printed, in whatever character set the page has, and of a bounded length."""
    web.answers["/page?a=1"] = page
    assert await unless_hung(web.fetcher().fetch(web.url("/page?a=1"))) == title
    assert f"Host: public.example:{web.port}\r\n" in web.asked[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n<title>x</title>", "no HTML"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>x", "no title"),
        (PAGE % "\u202e".encode(), "no title"),
        (b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\n\r\n<title>x</title>", "answers 500"),
        (b"SSH-2.0-OpenSSH\r\n", "as a web server"),
        (b"", "closes the connection"),
        (PAGE.replace(b"<title>", b" " * ANSWER_BYTES_MAX + b"<title>") % b"too late", "no title"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "no link may lead"),
        (b"HTTP/1.1 302 Found\r\nLocation: /page\r\n\r\n", "redirects more than"),
    ],
)  # fmt: skip
async def test_what_has_no_title_is_refused_with_its_reason(web: Web, answer: bytes, why: str) -> None:
    """Whatever the target answers, the refusal says in a few words why there is no title."""
    web.answers["/page"] = answer
    with pytest.raises(NoTitle, match=why):
        await unless_hung(web.fetcher().fetch(web.url("/page")))


async def test_nothing_inside_is_reached(web: Web) -> None:
    """A name with any address that is not public is not connected to, nor is one that a public page redirects to;
    nor are ports of other protocols."""
    fetcher = web.fetcher()
    web.answers["/page"] = PAGE % b"secret"
    web.addresses["both.example"] = ["127.0.0.1", "127.0.0.2"]
    for host in ("inside.example", "both.example"):
        with pytest.raises(NoTitle, match="public Internet"):
            await fetcher.fetch(web.url("/page", host))
    web.answers["/in"] = (
        f"HTTP/1.1 302 Found\r\nLocation: {web.url('/page', 'inside.example')}\r\n\r\n".encode()
    )
    with pytest.raises(NoTitle, match="public Internet"):
        await unless_hung(fetcher.fetch(web.url("/in")))
    with pytest.raises(NoTitle, match="port 25"):
        await fetcher.fetch("http://public.example:25/")
    assert len(web.asked) == 1


async def test_the_address_that_was_checked_is_the_one_that_is_used(web: Web) -> None:
    """A name is resolved once per request: a name server that says something else later changes nothing."""
    web.answers["/page"] = PAGE % b"checked"
    assert await unless_hung(web.fetcher().fetch(web.url("/page"))) == "checked"
    assert web.resolved == ["public.example"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:1::1", False),
    ],
)
def test_public_addresses(address: str, expected: bool) -> None:
    """Only addresses of the public Internet are public, also inside addresses that carry another one."""
    assert is_public(address) is expected


async def test_few_are_fetched_at_once_and_none_for_long(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """While FETCHES_MAX targets do not answer, a further one is refused; and none is waited for without end."""
    web.answers["/silent"] = None
    fetcher = web.fetcher()
    waiting = [asyncio.ensure_future(fetcher.fetch(web.url("/silent"))) for _ in range(FETCHES_MAX)]
    await until(lambda: len(web.asked) == FETCHES_MAX)
    with pytest.raises(Unavailable, match="too many"):
        await fetcher.fetch(web.url("/silent"))
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    monkeypatch.setattr(titles, "FETCH_S_MAX", 0.05)
    with pytest.raises(NoTitle, match="did not answer within"):
        await unless_hung(fetcher.fetch(web.url("/silent")))
