"""Conversations of clients with redirects and creates: plain, odd and ambiguous ones.

These links exist: `fp-a` (302), `fp-b` (308), `fp-c` (301, a URL with escapes), `fp-over` (expired), `fp-gone`
(deleted), `fp-off` (switched off), `fp-late` (not yet), `fp-else` (expired, and leads elsewhere), `fp-on` (forwards
path and query to `https://example.org/to?a=1#f`), `fp-some` (10,000 clicks), `fp-used` (used up), `fp-shut` (with
the password `open sesame`), `fp-fork` (phones lead to `https://example.org/m`); `fp-none` does not. ALIAS stands
for an unused word, as an alias or an Idempotency-Key.
"""

from __future__ import annotations

from dataclasses import dataclass

CODES = (
    "fp-a",
    "fp-b",
    "fp-c",
    "fp-over",
    "fp-gone",
    "fp-off",
    "fp-late",
    "fp-else",
    "fp-on",
    "fp-some",
    "fp-used",
    "fp-shut",
    "fp-fork",
)
HEAD_BYTES_MAX = 16_384
ALIAS = b"alias-00"
HOST = b"Host: s.example.org"


@dataclass(frozen=True, slots=True)
class Case:
    """Packets. `fast_answers` is the number of requests in them that the fast path answers; None if it may vary."""

    name: str
    parts: tuple[bytes, ...]
    fast_answers: int | None = 0


def head(
    *headers: bytes, target: bytes = b"/fp-a", method: bytes = b"GET", version: bytes = b"HTTP/1.1"
) -> bytes:
    """Returns a request without a body. It begins with a Host, unless the headers have one."""
    has_host = any(header.lower().startswith(b"host") for header in headers)
    return bare_head(*([] if has_host else [HOST]), *headers, target=target, method=method, version=version)


def bare_head(
    *headers: bytes, target: bytes = b"/fp-a", method: bytes = b"GET", version: bytes = b"HTTP/1.1"
) -> bytes:
    """Returns a request with these headers only."""
    return b"\r\n".join([method + b" " + target + b" " + version, *headers, b"", b""])


def post(body: bytes, *headers: bytes, media: bytes = b"application/json") -> bytes:
    """Returns a create with a Content-Length, as most clients send it."""
    own = (HOST, b"Content-Type: " + media, b"Content-Length: %d" % len(body))
    return head(*own, *headers, target=b"/api/v1/links", method=b"POST") + body


def form(body: bytes, media: bytes = b"application/x-www-form-urlencoded") -> bytes:
    """Returns a form as browsers send it to the link with a password."""
    own = (HOST, b"Content-Type: " + media, b"Content-Length: %d" % len(body))
    return head(*own, target=b"/fp-shut", method=b"POST") + body


def odd_post(*headers: bytes, **spelled: bytes) -> bytes:
    """Returns the head of a create in which only `headers` describe its body."""
    return head(
        b"content-type: application/json",
        *headers,
        **{"target": b"/api/v1/links", "method": b"POST", **spelled},
    )


def padded(length: int) -> bytes:
    """Returns a plain head with `length` bytes before its empty line."""
    bare = len(head(b"x: ")) - 4
    return head(b"x: " + b"y" * (length - bare))


A = head()
B = head(target=b"/fp-b")
C = head(b"host: x", target=b"/fp-c", method=b"HEAD")
NONE = head(target=b"/fp-none")
POST = head(b"content-length: 2", method=b"POST", target=b"/api/v1/links") + b"{}"
BROWSER = head(
    b"Host: s.example.org",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    b"Accept-Language: de,en-US;q=0.7,en;q=0.3",
    b"Accept-Encoding: gzip, deflate, br, zstd",
    b"Referer: https://www.example.com/a?b=c",
    b"Connection: keep-alive",
    b"Cookie: a=b; c=d",
    b"Upgrade-Insecure-Requests: 1",
    b"Sec-Fetch-Dest: document",
    b"Priority: u=0, i",
)

PLAIN = (
    Case("a GET", (A,), 1),
    Case("a HEAD", (head(method=b"HEAD"),), 1),
    Case("308", (B,), 1),
    Case("301 and a HEAD", (C,), 1),
    Case("a browser", (BROWSER,), 1),
    Case("kept alive", (A, A, A), 3),
    Case("two in one packet", (A + B,), 2),
    Case("a hundred in one packet", (BROWSER * 100,), 100),
    Case("pipelined over packets", (A + B, C + A, B), 5),
    Case("a query", (head(target=b"/fp-a?utm_source=x&y=%20%zz"), head(target=b"/fp-a?"), B), 3),
    Case("a query that is an address", (head(target=b"/fp-a?http://user@x:1/y?z=[1"), B), None),
    Case("no value, spaces, tabs", (head(b"a:", b"b:  \t x \t ", b"c: \t"), B), 2),
    Case(
        "keep-alive, spelled in ways", (head(b"CONNECTION:\t Keep-Alive"), head(b"connection:keep-alive")), 2
    ),
    Case("keep-alive, twice", (head(b"Connection: keep-alive", b"connection: KEEP-ALIVE"), B), 2),
    Case("one header twice", (head(b"b: x", b"b: y", b"a: 1", b"A: 2"), B), 2),
    Case("hosts, well formed", (
        head(b"Host: s.example.org:8000"), head(b"hOST:\t[2001:db8::1]:80"), head(b"host:"), head(b"Host: A_b-1."),
    ), 4),
    Case("the host is not first", (head(b"a: b", b"Host: x", b"User-Agent: y"), B), 2),
    Case("names that begin alike", (head(b"Content-Length-X: 5", b"Expected: x", b"Upgrades: y"), B), 2),
    Case("every sign of a name", (head(b"!#$%&'*+-.^_`|~09azAZ: x"), B), 2),
    Case("the longest head", (padded(HEAD_BYTES_MAX - 1), B), 2),
    Case("the longest head is not the first", (A + padded(HEAD_BYTES_MAX - 1) + B,), 3),
    Case("from somewhere", (head(b"Referer: https://www.example.com/a?b", b"user-agent: curl/8.5.0"), B), 2),
    Case("from two places", (head(b"referer: http://a.example/", b"REFERER: b.example ", b"Referer:"), B), 2),
    Case("from strange places", (
        head(b"referer:\t android-app://x/ \t", b"User-Agent: \t "),
        head(b"Referer: HTTPS://User@WWW.Example.COM.:8443?x", b"User-Agent: Mozilla/5.0 Chrome/1 Safari/1 Edg/1 "),
    ), 2),
    Case("in a language", (head(b"Accept-Language: de-AT,de;q=0.9", b"accept-language:\t fr \t"), B), 2),
    Case("without tracking", (
        head(b"DNT: 1"), head(b"sec-gpc:\t1 "), head(b"DNT: 0", b"Sec-GPC: 11"), head(b"dnt:1", b"DNT: 0"),
    ), 4),
    Case("of a campaign", (
        head(target=b"/fp-a?utm_source=Mail%20x&qr"), head(target=b"/fp-a?" + b"x" * 600 + b"&qr"),
        head(target=b"/fp-b?qr&utm_medium=%ff"), head(target=b"/fp-c?UTM_source=own"), C,
    ), 5),
    Case("from a country", (
        head(b"X-Forwarded-For: 192.0.2.9", b"X-Forwarded-For: 192.0.2.1, 198.51.100.7", b"CF-IPCountry: de"),
        head(b"cf-ipcountry: FR", b"CF-IPCOUNTRY:\tat \t"), head(b"CF-IPCountry: " + b"x" * 99), B,
    ), 4),
    Case("a method override", (head(b"X-HTTP-Method-Override: DELETE"), B), 2),
    Case("a range and conditions", (head(b"Range: bytes=0-1", b'If-None-Match: "1"', b"If-Match: *"), B), 2),
    Case("whom a proxy names", (head(b"X-Forwarded-For: 192.0.2.1", b"Forwarded: for=192.0.2.2"), B), 2),
)  # fmt: skip

OTHER = (
    Case("a link that is not there", (NONE, A), None),
    Case("a deleted link", (head(target=b"/fp-gone"), A), None),
    Case("an expired link", (head(target=b"/fp-over"), A), None),
    Case("a link that is switched off", (head(target=b"/fp-off"), A), None),
    Case("a link that does not work yet", (head(target=b"/fp-late") + A,), 0),
    Case("an expired link that leads elsewhere", (head(target=b"/fp-else"), A + head(target=b"/fp-else"), B), None),
    Case("a query that is forwarded", (head(target=b"/fp-on?a=2&b=%zz") + A, head(target=b"/fp-on?") + B), None),
    Case("a path that is forwarded", (
        head(target=b"/fp-on/x/../y"), head(target=b"/fp-on/x//y?b") + head(target=b"/fp%2Don/x", method=b"HEAD"),
        head(target=b"http://s.example.org/fp-on/\xff?\xff"), head(target=b"/fp-on/" + b"x" * 2_100), A), None),
    Case("links of limited clicks", (
        head(target=b"/fp-some"), head(target=b"/fp-some", method=b"HEAD") + A, head(target=b"/fp-used") + B,
    ), None),
    Case("a link with a password", (
        head(target=b"/fp-shut"), head(target=b"/fp-shut", method=b"HEAD") + A,
        BROWSER.replace(b"/fp-a", b"/fp-shut"), form(b"password=open+sesame"), form(b"password=x"),
        form(b"x=y") + A, form(b"password=open+sesame", b"application/json"), B), None),
    Case("a link with rules", (
        head(target=b"/fp-fork"), head(b"User-Agent: Mozilla/5.0 (iPhone)", target=b"/fp-fork"),
        BROWSER.replace(b"/fp-a", b"/fp-fork") + A), None),
    Case("plain, missing, plain in one packet", (A + NONE + B,), 1),
    Case("plain, missing, plain in packets", (A, NONE, B), None),
    Case("a page for a browser", (NONE[:-2] + b"accept: text/html\r\n\r\n", A), None),
    Case("an id for a request", (NONE[:-2] + b"x-request-id: abc\r\n\r\n", A), None),
    Case("a reserved word", (head(target=b"/health"), head(target=b"/Docs"), A), None),
    Case("other addresses", (head(target=b"/") + head(target=b"/robots.txt") + A,), 0),
    Case("other methods", (head(method=b"OPTIONS"), head(method=b"DELETE") + head(method=b"BREW"), A), None),
    Case("a method in small letters", (head(method=b"get"), A), None),
    Case("a create, then a redirect", (POST + A,), 2),
    Case("Connection: close", (head(b"Connection: close"), A), 0),
    Case("Connection: close, in the midst", (A + head(b"Connection: close") + B,), 1),
    Case("Connection: Close", (head(b"connection: Close"), A), 0),
    Case("Connection: nothing", (head(b"connection:"), A), 0),
    Case("Connection: a list", (head(b"connection: keep-alive, x"), A), 0),
    Case("Connection: a space behind", (head(b"connection: keep-alive "), A), 0),
    Case("keep-alive, then close", (head(b"connection: keep-alive", b"connection: close"), A), 0),
    Case("close, then keep-alive", (head(b"connection: close", b"connection: keep-alive"), A), None),
    Case("HTTP/1.0", (head(version=b"HTTP/1.0"), A), 0),
    Case("HTTP/1.0 and keep-alive", (head(b"connection: keep-alive", version=b"HTTP/1.0"), A), None),
    Case("HTTP/1.0 HEAD", (A + head(version=b"HTTP/1.0", method=b"HEAD"),), 1),
    Case("HTTP/1.2", (head(version=b"HTTP/1.2"), A), 0),
    Case("HTTP/2", (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", A), 0),
    Case("HTTP/0.9", (b"GET /fp-a\r\n\r\n", A), 0),
    Case("a version in small letters", (head(version=b"http/1.1"), A), 0),
    Case("an absolute target", (head(target=b"http://s.example.org/fp-a"), A), None),
    Case("an absolute target of another host", (head(target=b"http://fp-b/fp-a", version=b"HTTP/1.1"),), 0),
    Case("an authority", (head(target=b"fp-a:80", method=b"CONNECT"), A), None),
    Case("an asterisk", (head(target=b"*", method=b"OPTIONS"), A), None),
    Case("no slash", (head(target=b"fp-a"), A), None),
    Case("percent-encoded", (head(target=b"/fp%2Da"), head(target=b"/%66p-a") + B, A), None),
    Case("percent-encoded, wrongly", (head(target=b"/fp-%zz"), head(target=b"/fp%2"), A), None),
    Case("a slash behind", (head(target=b"/fp-a/"), head(target=b"//fp-a") + head(target=b"/fp-a/x"), A), None),
    Case("dots", (head(target=b"/./fp-a"), head(target=b"/x/../fp-a"), A), None),
    Case("a parameter", (head(target=b"/fp-a;x=1"), A), None),
    Case("a fragment", (head(target=b"/fp-a#x"), head(target=b"/fp-a?x#y"), A), None),
    Case("quotes in the query", (head(target=b'/fp-a?"<>`{}|\\^'), A), None),
    Case("bytes beyond ASCII in the query", (head(target=b"/fp-a?\xc3\xbc=\xff"), A), None),
    Case("a host of odd spelling", (head(b"host: a%20b \t"), A), None),
    Case("no host in HTTP/1.0", (bare_head(version=b"HTTP/1.0"),), 0),
    Case("an encoding in other letters", (head(b"Transfer-Encoding: Chunked") + b"0\r\n\r\n", A), None),
    Case("from a place beyond ASCII", (head(b"referer: http://\xc3\xbc/", b"user-agent: \xff Firefox/1"),), None),
    Case("bytes beyond ASCII in a value", (head(b"x: \xc3\xbc\xff"), A), None),
    Case("a code that is too long", (head(target=b"/" + b"a" * 65), A), None),
    Case("a body on a GET", (head(b"content-length: 5") + b"hello" + A,), 0),
    Case("a body on a GET, in packets", (head(b"content-length: 5"), b"hel", b"lo", A), None),
    Case("a body that looks like a request", (head(b"content-length: %d" % len(B)), B, A), None),
    Case("the same in one packet", (head(b"content-length: %d" % len(B)) + B + A,), 0),
    Case("no body, and says so", (head(b"content-length: 0") + A,), 0),
    Case("a body on a HEAD", (head(b"content-length: 3", method=b"HEAD") + b"abc" + A,), 0),
    Case("a chunked body", (head(b"transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n" + A,), 0),
    Case("a chunked body, in packets", (head(b"transfer-encoding: chunked"), b"3\r\nabc\r\n0\r\n\r\n", A), None),
    Case("a chunked body with extensions", (
        head(b"transfer-encoding: chunked") + b'03;a=b;c\r\nabc\r\nA ; d="e"\r\n0123456789\r\n00\r\n\r\n',
        A), None),
    Case("a chunk that looks like a request", (
        head(b"transfer-encoding: chunked") + b"%x\r\n" % len(B), B, b"\r\n0\r\n\r\n", A), None),
    Case("a trailer", (head(b"transfer-encoding: chunked") + b"0\r\nx: y\r\n\r\n" + A,), 0),
    Case("Expect, no body", (head(b"expect: 100-continue"), A), None),
    Case("Expect and a body", (head(b"expect: 100-continue", b"content-length: 2"), b"hi", A), None),
    Case("Expect something else", (head(b"expect: 200-ok"), A), None),
    Case("something else, and a body", (head(b"expect: 200-ok", b"content-length: 2") + b"hi" + A,), 0),
    Case("Upgrade to a websocket", (
        head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Version: 13"),
        A), 0),
    Case("Upgrade, kept alive", (head(b"Connection: keep-alive", b"Upgrade: websocket"), A), None),
    Case("Upgrade to h2c", (head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), A), 0),
    Case("a head one byte too long", (padded(HEAD_BYTES_MAX), A), 0),
    Case("a head one byte too long, behind another", (A + padded(HEAD_BYTES_MAX) + B,), 1),
    Case("a head that never ends", (b"GET /fp-a HTTP/1.1\r\nx: " + b"y" * 20_000, b"\r\n\r\n"), 0),
    Case("a target that is too long", (head(target=b"/fp-a?" + b"x" * 20_000), A), 0),
    Case("an empty line before", (b"\r\n" + A,), 0),
    Case("an empty line between", (A + b"\r\n" + B,), 1),
    Case("an empty line in a packet of its own", (A, b"\r\n", B), None),
    Case("two empty lines before", (b"\r\n\r\n" + A,), 0),
    Case("an empty line in two packets", (A, b"\r", b"\n", B), None),
    Case("an empty line, and no more", (A, b"\r\n"), 1),
    Case("nonsense", (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", A), 0),
    Case("half a head, and no more", (A[:-2],), 0),
    Case("half a head behind whole ones", (A + B + A[:9], A[9:]), None),
)  # fmt: skip

URL = b'{"url": "https://example.org/a?b=c"}'
ALIASED = b'{"url": "https://example.org/", "alias": "%s"}' % ALIAS
EVERYTHING = (
    b'{"url": "https://example.org/\xc3\xbc", "alias": "%s", "title": "T\xc3\xa4", "tags": ["a", "b"], '
    b'"redirect_status": 308, "expires_at": "2099-12-31T23:59:59+01:00"}' % ALIAS
)
CREATE = post(URL)
CREATE_HEAD, CREATE_BODY = CREATE[: -len(URL)], URL
LENGTH = b"content-length: %d" % len(URL)
KEY = b"Idempotency-Key: " + ALIAS

CREATES = (
    Case("a create", (CREATE,), 1),
    Case("creates, kept alive", (CREATE, CREATE, CREATE), 3),
    Case("creates in one packet", (CREATE * 5,), 5),
    Case("creates and redirects in one packet", (A + CREATE + B + CREATE + A,), 5),
    Case("creates and redirects over packets", (A + CREATE, B, CREATE + A), 5),
    Case("a create and half of what follows", (CREATE + A[:9], A[9:]), None),
    Case("every field", (post(EVERYTHING),), 1),
    Case("an alias, taken, and followed", (post(ALIASED), post(ALIASED), head(target=b"/" + ALIAS)), None),
    Case("a reserved alias", (post(b'{"url": "https://example.org/", "alias": "docs"}'),), 1),
    Case("no fields", (post(b"{}"),), 1),
    Case("an unknown field", (post(b'{"url": "https://example.org/", "uri": 1}'),), 1),
    Case("a field twice", (post(b'{"url": "https://a.example/", "url": "https://b.example/"}'), A), 2),
    Case("no URL of ours", (post(b'{"url": "ftp://example.org/"}'), post(b'{"url": "http://localhost/"}')), 2),
    Case("no JSON", (post(b"{"), post(b"nonsense"), post(b"\xff\xfe"), post(b"[]"), post(b"NaN"), A), 6),
    Case("no body, and says so", (post(b""), A), 2),
    Case("nested deeply", (post(b"[" * 5_000 + b"]" * 5_000), A), 2),
    Case("no media type", (head(LENGTH, target=b"/api/v1/links", method=b"POST") + URL + A,), 2),
    Case("another media type", (post(URL, media=b"text/plain"), post(URL, media=b""), A), 3),
    Case("a charset", (
        post(URL, media=b"application/json; charset=utf-8"), post(URL, media=b"APPLICATION/JSON;Charset=\"UTF-8\""),
        post(URL, media=b"application/json; charset=latin1"), A), 4),
    Case("media types", (post(URL, b"content-type: text/plain"), post(URL, b"Content-Type: application/json")), 2),
    Case("an encoding", (post(URL, b"content-encoding: gzip"), post(URL, b"content-encoding: identity"), A), 3),
    Case("repeated by a key", (post(URL, KEY), post(URL, KEY), post(ALIASED, KEY), A), 4),
    Case("a key that is none", (post(URL, b"idempotency-key: a b"), post(URL, b"idempotency-key:"), A), 3),
    Case("an API key that is none", (post(URL, b"X-Api-Key: x"), post(URL, b"Authorization: Basic eDp5"), A), 3),
    Case("two API keys", (post(URL, b"X-Api-Key: x", b"Authorization: Bearer y"), A), 2),
    Case("an unknown API key", (
        post(URL, b"Authorization: Bearer snap_0123456789_01234567890123456789012345678901"), A), 2),
    Case("ids for requests", (post(URL, b"X-Request-Id: abc.1"), post(b"{}", b"x-request-id: a b"), A), 3),
    Case("an id twice", (post(URL, b"X-Request-Id: abc", b"x-request-id: def"),), 1),
    Case("whom a proxy names, and a trace", (
        post(URL, b"X-Forwarded-For: 192.0.2.1", b"traceparent: 00-%s-%s-01" % (b"1" * 32, b"2" * 16)), A), 2),
    Case("keep-alive, spelled in ways", (
        post(URL, b"CONNECTION:\t Keep-Alive"), post(URL, b"connection:keep-alive")), 2),
    Case("a browser's headers", (post(URL, b"Accept: text/html", b"Origin: https://a.example"),), 1),
    Case("values with spaces", (odd_post(b"content-length:\t %d" % len(URL), b"x:  \t y \t ") + URL, A), 2),
    Case("the longest head", (post(URL, b"x: " + b"y" * (HEAD_BYTES_MAX - 1 - len(CREATE_HEAD) - 1)), A), 2),
)  # fmt: skip

OTHER_CREATES = (
    Case("the body in a packet of its own", (CREATE_HEAD, CREATE_BODY, A), None),
    Case("a body in parts", (CREATE[:-9], CREATE[-9:-1], CREATE[-1:] + A), 0),
    Case("a head in parts, behind a create", (CREATE + CREATE[:40], CREATE[40:] + A), None),
    Case("a body that never ends", (CREATE[:-1],), 0),
    Case("Connection: close", (post(URL, b"Connection: close"), A), 0),
    Case("Connection: close, behind a create", (CREATE + post(URL, b"Connection: close") + CREATE,), 1),
    Case("HTTP/1.0", (odd_post(LENGTH, version=b"HTTP/1.0") + URL, A), 0),
    Case("a query", (odd_post(LENGTH, target=b"/api/v1/links?x=1") + URL + A,), 0),
    Case("an empty query", (odd_post(LENGTH, target=b"/api/v1/links?") + URL + A,), 0),
    Case("a slash behind", (odd_post(LENGTH, target=b"/api/v1/links/") + URL + A,), 0),
    Case("a path with percent signs", (odd_post(LENGTH, target=b"/api/v1/link%73") + URL + A,), 0),
    Case("an absolute target", (odd_post(LENGTH, target=b"http://x/api/v1/links") + URL + A,), 0),
    Case("other methods", (odd_post(LENGTH, method=b"PUT") + URL, odd_post(LENGTH, method=b"post") + URL, A), None),
    Case("a bulk call", (
        odd_post(b"content-length: 13", target=b"/api/v1/links/bulk") + b'{"links": [1]', A), None),
    Case("no length", (odd_post(), A), None),
    Case("chunks", (odd_post(b"transfer-encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(URL), URL) + A,), 0),
    Case("Expect", (odd_post(LENGTH, b"expect: 100-continue"), URL, A), None),
    Case("Expect, and the body at once", (odd_post(LENGTH, b"expect: 100-continue") + URL + A,), 0),
    Case("Upgrade", (odd_post(LENGTH, b"connection: upgrade", b"upgrade: h2c") + URL + A,), 0),
    Case("Upgrade to a websocket", (odd_post(LENGTH, b"upgrade: websocket") + URL + A,), 0),
    Case("a length with a space behind", (odd_post(LENGTH + b" ") + URL + A,), 0),
    Case("a length that is too large", (odd_post(b"content-length: 99999999") + URL + A,), 0),
    Case("a length of many digits", (odd_post(b"content-length: 0000000000%d" % len(URL)) + URL + A,), 0),
    Case("a head one byte too long", (post(URL, b"x: " + b"y" * (HEAD_BYTES_MAX - len(CREATE_HEAD) - 1)), A), 0),
    Case("bytes beyond ASCII", (post(URL, b"x: \xc3\xbc") + A,), 0),
)  # fmt: skip

SMUGGLED = B
"""What must not be carried out: it follows a head that could be read so that it is a body."""

AMBIGUOUS = (
    Case("both lengths", (head(b"content-length: 5", b"transfer-encoding: chunked"),)),
    Case("both lengths, turned", (head(b"transfer-encoding: chunked", b"content-length: 5"),)),
    Case("two lengths", (head(b"content-length: 5", b"content-length: 0"),)),
    Case("one length twice", (head(b"content-length: 5", b"Content-Length: 5"),)),
    Case("a list of lengths", (head(b"content-length: 5, 5"),)),
    Case("a length with a sign", (head(b"content-length: +5"),)),
    Case("a length below nought", (head(b"content-length: -1"),)),
    Case("a length with a line", (head(b"content-length: 1_0"),)),
    Case("a length in hexadecimal", (head(b"content-length: 0x5"),)),
    Case("a length in other digits", (head("content-length: \u0665".encode()),)),
    Case("no length after all", (head(b"content-length:"),)),
    Case("a space before the colon", (head(b"content-length : 5"),)),
    Case("a tab before the colon", (head(b"transfer-encoding\t: chunked"),)),
    Case("a space before the name", (head(b" content-length: 5"),)),
    Case("a folded line", (head(b"x: y", b" content-length: 5"),)),
    Case("a folded line, by a tab", (head(b"x: y", b"\ttransfer-encoding: chunked"),)),
    Case("a folded value", (head(b"transfer-encoding:", b" chunked"),)),
    Case("a bare line feed before a length", (head(b"x: y\ncontent-length: 5"),)),
    Case("a bare carriage return before a length", (head(b"x: y\rcontent-length: 5"),)),
    Case("a bare line feed after the request line", (b"GET /fp-a HTTP/1.1\nhost: x\r\n\r\n",)),
    Case("bare line feeds only", (b"GET /fp-a HTTP/1.1\nhost: x\n\n",)),
    Case("a bare line feed in the end", (b"GET /fp-a HTTP/1.1\r\nhost: x\r\nx: y\n\r\n\r\n",)),
    Case("a NUL in a name", (head(b"content-length\x00: 5"),)),
    Case("a NUL in a value", (head(b"x: y\x00"),)),
    Case("a NUL in the target", (head(target=b"/fp-a\x00"),)),
    Case("a delete in a value", (head(b"x: y\x7f"),)),
    Case("a vertical tab in a value", (head(b"transfer-encoding: \x0bchunked"),)),
    Case("a name that is none", (head(b"content(length: 5"),)),
    Case("a name beyond ASCII", (head(b"content-length\xa0: 5"),)),
    Case("no name", (head(b": 5"),)),
    Case("no colon", (head(b"content-length 5"),)),
    Case("an unknown encoding", (head(b"transfer-encoding: xchunked"),)),
    Case("two encodings", (head(b"transfer-encoding: gzip, chunked"),)),
    Case(
        "two encodings, in two lines", (head(b"transfer-encoding: chunked", b"transfer-encoding: identity"),)
    ),
    Case("an encoding in letters beyond ASCII", (head("transfer-encoding: chun\u212aed".encode()),)),
    Case("an encoding in HTTP/1.0", (head(b"transfer-encoding: chunked", version=b"HTTP/1.0"),)),
    Case("no host", (bare_head(b"x: y"),)),
    Case("two hosts", (head(b"Host: x", b"a: b", b"host: y"),)),
    Case("one host twice", (head(b"Host: x", b"Host: x"),)),
    Case("two hosts in HTTP/1.0", (head(b"Host: x", b"Host: y", version=b"HTTP/1.0"),)),
    Case("two hosts in one", (head(b"Host: x, y"),)),
    Case("a host with a path", (head(b"Host: x/y"),)),
    Case("a host with a user", (head(b"Host: u@x"),)),
    Case("a host with a space", (head(b"Host: x y"),)),
    Case("a host with a bad port", (head(b"Host: x:80a"),)),
    Case("a host with a bad percent sign", (head(b"Host: x%zz"),)),
    Case("a host in half brackets", (head(b"Host: [::1"),)),
    Case("a host beyond ASCII", (head("Host: \u00fc.example".encode()),)),
    Case("a create with no host", (bare_head(LENGTH, target=b"/api/v1/links", method=b"POST"),)),
    Case("a create with two hosts", (odd_post(LENGTH, b"Host: x", b"Host: y"),)),
    Case("an encoding with a space behind", (head(b"transfer-encoding: chunked "),)),
    Case("no encoding", (head(b"transfer-encoding: identity"),)),
    Case("two spaces after the method", (b"GET  /fp-a HTTP/1.1\r\n\r\n",)),
    Case("a tab after the method", (b"GET\t/fp-a HTTP/1.1\r\n\r\n",)),
    Case("a space in the target", (b"GET /fp-a /x HTTP/1.1\r\n\r\n",)),
    Case("a space before the method", (b" GET /fp-a HTTP/1.1\r\n\r\n",)),
    Case("a space after the version", (b"GET /fp-a HTTP/1.1 \r\n\r\n",)),
    Case("a tab in the target", (b"GET /fp-a\t HTTP/1.1\r\n\r\n",)),
    Case("a carriage return in the target", (b"GET /fp-a\rx HTTP/1.1\r\n\r\n",)),
    Case("another version", (head(version=b"HTTP/1.10"),)),
    Case("a method that is none", (head(method=b"G(ET"),)),
    Case("a create with two lengths", (odd_post(LENGTH, b"content-length: 0"),)),
    Case("a create with one length twice", (odd_post(LENGTH, LENGTH),)),
    Case("a create with both lengths", (odd_post(LENGTH, b"transfer-encoding: chunked"),)),
    Case("a create with a list of lengths", (odd_post(b"content-length: 5, 5"),)),
    Case("a create with a length with a sign", (odd_post(b"content-length: +5"),)),
    Case("a create with no length after all", (odd_post(b"content-length:"),)),
    Case("a create with a folded length", (odd_post(b"x: y", b" content-length: 5"),)),
    Case("a create with a space before a colon", (odd_post(b"content-length : 5"),)),
    Case("a create with a bare line feed", (odd_post(b"x: y\ncontent-length: 5"),)),
)

AMBIGUOUS_BODIES = {
    "a size in another notation": b"0x5\r\nhello\r\n0\r\n\r\n",
    "nothing, in another notation": b"0x0\r\n\r\n",
    "a size in other digits": "\u0665\r\nhello\r\n0\r\n\r\n".encode(),
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with a line": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size of many digits": b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a line feed behind the size": b"5\n\r\nhello\r\n0\r\n\r\n",
    "a line feed in an extension": b"5;\nx\r\nhello\r\n0\r\n\r\n",
    "a carriage return in an extension": b"5;\rx\r\nhello\r\n0\r\n\r\n",
    "an extension that never ends": b"5;" + b"x" * 200,
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "no line end behind a chunk": b"5\r\nhelloxx0\r\n\r\n",
    "a chunk that is longer than its size": b"4\r\nhello\r\n0\r\n\r\n",
    "a line feed behind a chunk": b"5\r\nhello\n0\r\n\r\n",
    "a trailer": b"0\r\nx: y\r\n\r\n",
}
"""What follows `transfer-encoding: chunked`, and could be read so that it ends elsewhere."""
