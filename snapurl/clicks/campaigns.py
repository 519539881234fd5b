"""The campaign of a click and how the link was opened, from the query of the short URL and of its target. Pure.

Both may have `utm_source`, `utm_medium` and `utm_campaign`. The query of the short URL counts first, then that of
the target: what the target would get if the query were forwarded. So the campaign that the owner of a link has put
into its target counts, too.

Values are text, with percent-encoding resolved: in lower case, without the spaces around them, without characters
that cannot be printed, and cut to VALUE_BYTES_MAX of UTF-8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from snapurl.clicks.sources import CACHED_HEADERS_MAX, HEADER_BYTES_MAX, NONE, OTHER
from snapurl.qr import SCAN_MARK

LINK = "link"
QR = "qr"
VALUE_BYTES_MAX = 100
FIELDS_MAX = 50  # of a query that are looked at

_SCAN = SCAN_MARK.encode()
_UTM = (b"utm_source", b"utm_medium", b"utm_campaign")


class Campaign(NamedTuple):
    """The values of a query, NONE for what it does not have."""

    source: str = NONE
    medium: str = NONE
    name: str = NONE


NO_CAMPAIGN = Campaign()


def channel_of(query: bytes | None) -> str:
    """Returns how the link was opened: QR if the short URL has the mark of a QR code, else LINK."""
    return QR if query and _SCAN in query and _SCAN in query.split(b"&", FIELDS_MAX)[:FIELDS_MAX] else LINK


def campaign_of(query: bytes | None, target: bytes) -> Campaign:
    """Returns the campaign. `query` is that of the short URL, as it was sent; `target` the URL that was opened."""
    own = _campaign_in(query[:HEADER_BYTES_MAX]) if query else NO_CAMPAIGN
    if NONE not in own or b"utm_" not in target:
        return own
    of_target = _campaign_in(target.partition(b"#")[0].partition(b"?")[2][:HEADER_BYTES_MAX])
    return Campaign(*(mine or theirs for mine, theirs in zip(own, of_target, strict=True)))


def campaign_part(url: str) -> bytes:
    """Returns as much of a target as `campaign_of` looks at, so that not every URL is kept."""
    if "utm_" not in url:
        return b""
    query = url.partition("#")[0].partition("?")[2]
    return b"?" + query.encode(errors="surrogateescape")[:HEADER_BYTES_MAX]


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def _campaign_in(query: bytes) -> Campaign:
    """Returns the values of a query; of a parameter that is there twice, the first that says something."""
    found = dict.fromkeys(_UTM, NONE)
    for pair in query.split(b"&", FIELDS_MAX)[:FIELDS_MAX]:
        name, _, value = pair.partition(b"=")
        known = unquote_to_bytes(name).lower()
        if found.get(known) == NONE:
            found[known] = text_of(value)
    return Campaign(*found.values())


def text_of(value: bytes) -> str:
    """Returns the text of a value in a query; OTHER if nothing of it can be printed, NONE if it is empty."""
    text = unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace").lower()
    printed = "".join(filter(str.isprintable, text)).strip()
    return cut(printed) or (OTHER if text.strip() else NONE)


def cut(text: str) -> str:
    """Returns the beginning of a text: at most VALUE_BYTES_MAX of UTF-8, and no half character."""
    return text.encode()[:VALUE_BYTES_MAX].decode("utf-8", "ignore").strip()
