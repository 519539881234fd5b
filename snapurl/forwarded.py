"""What a short URL forwards to the target of its link: its query, and the path behind its code. Pure.

Both come from strangers, and what is made of them is sent as `Location`. So every character that RFC 3986 does not
allow is percent-encoded, and only what stands behind the target's host is ever changed. A segment `.` or `..` is
refused, in each spelling: it would lead out of the target's path.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

from snapurl.errors import BadRequest, TooLarge
from snapurl.qr import SCAN_MARK

FORWARDED_BYTES_MAX = 2_048  # of path and query together

_SCAN = SCAN_MARK.encode()  # of a QR code: it is for this service
_SAFE = "%!$&'()*+,;=:@/~"  # besides letters, digits, "-", "." and "_"
_BARE_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_URL = re.compile(r"([^/?#]*//[^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)


def forwarded(url: str, rest: bytes, query: bytes) -> str:
    """Returns `url` with the path `rest` behind its own and the parameters of `query` in its query.

    Both are as a client sent them, without the slash and the question mark before them. A parameter of `query`
    replaces all of the same name in `url`. Raises TooLarge, and BadRequest for a segment `.` or `..`.
    """
    if len(rest) + len(query) > FORWARDED_BYTES_MAX:
        raise TooLarge(f"at most {FORWARDED_BYTES_MAX} bytes are forwarded to the link's target")
    match = _URL.fullmatch(url)
    assert match is not None, "a stored URL has a scheme and a host"
    origin, path, own_query, fragment = match.groups()
    if rest:
        path = f"{path.removesuffix('/')}/{_path(rest)}"
    merged = _merged(own_query, query)
    return origin + path + ("" if merged is None else f"?{merged}") + (fragment or "")


def _path(rest: bytes) -> str:
    if not {b".", b".."}.isdisjoint(re.split(rb"[/\\]", unquote_to_bytes(rest))):
        raise BadRequest("the path behind the code must have no segment . or ..")
    return _encoded(rest)


def _merged(own: str | None, query: bytes) -> str | None:
    given = [pair for pair in query.split(b"&") if pair and pair != _SCAN]
    if not given:
        return own
    names = {_name(pair) for pair in given}
    kept = [pair for pair in (own or "").split("&") if pair and _name(pair.encode()) not in names]
    return "&".join([*kept, *(_encoded(pair, "?") for pair in given)])


def _name(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))


def _encoded(text: bytes, also_safe: str = "") -> str:
    """Returns `text` with what no URL may have percent-encoded; what is encoded stays as it is."""
    return quote_from_bytes(_BARE_PERCENT.sub(b"%25", text), _SAFE + also_safe)
