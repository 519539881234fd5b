"""Cells: what the text in a cell says, whoever has written it. Pure.

Functions return None for an empty cell and raise RowRefused for one that can be read in no way, or in two.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from snapurl.imports.rows import Reading, RowRefused
from snapurl.model import TAGS_MAX

TITLE_CHARS_MAX = 300
NOTE_CHARS_MAX = 2_000
TAG_CHARS_MAX = 50
FIRST_YEAR = 1990  # of a time of creation

_EMPTY = frozenset(["", "null", "\\n"])
_EMPTY_CHARS = max(map(len, _EMPTY))
_TRUE = frozenset(["true", "t", "yes", "y", "1", "x", "on"])
_FALSE = frozenset(["false", "f", "no", "n", "0", "off"])
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_LINE_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")
_SECONDS = re.compile(r"[0-9]{9,10}")
_MILLISECONDS = re.compile(r"[0-9]{12,13}")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+ ?(Z|[+-][0-9:]+| UTC)?)?", re.IGNORECASE)
_ZULU = re.compile(r" ?(?:UTC|Z)\Z")
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(?:Z|[+-][0-9]{2}:[0-9]{2})"
)  # as most files have it
_NEVER = re.compile(r"0000-00-00.*")
_COUNT = re.compile(r"-?(?:[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]{1,15})(?:\.0+)?")
_PORT = re.compile(r":[0-9]*\Z")


def plain(text: str) -> str:
    """Returns a cell without the spaces around it and without the guard that keeps it from being a formula."""
    text = text.strip()
    return text[1:] if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@") else text


def is_empty(text: str) -> bool:
    """Whether a cell says nothing, also in the words of a database."""
    return len(text) <= _EMPTY_CHARS and text.lower() in _EMPTY


def time_of(text: str, reading: Reading) -> datetime | None:
    """Returns a time in UTC: ISO 8601, or seconds or milliseconds since 1970."""
    if is_empty(text) or _NEVER.fullmatch(text):
        return None
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
        if not _ISO.fullmatch(text):
            if _SECONDS.fullmatch(text):
                return datetime.fromtimestamp(int(text), UTC)
            if _MILLISECONDS.fullmatch(text):
                return datetime.fromtimestamp(int(text) / 1000, UTC)
            raise RowRefused(f"{text[:40]!r} is no date such as 2030-01-31 or 2030-01-31T12:00:00Z")
        found = datetime.fromisoformat(_ZULU.sub("+00:00", text.upper()))
        return (found if found.tzinfo else found.replace(tzinfo=reading.zone)).astimezone(UTC)
    except RowRefused:
        raise
    except (ValueError, OverflowError, OSError):
        raise RowRefused(f"{text[:40]!r} is no date that exists") from None


def creation(text: str, reading: Reading, remarks: list[str]) -> datetime | None:
    """Returns when a link was made; None, with a remark, if that cannot be true."""
    found = time_of(text, reading)
    if found is not None and not (found.year >= FIRST_YEAR and found <= reading.now):
        remarks.append(f"it cannot have been created at {found:%Y-%m-%d}: it is created now")
        return None
    return found


def count(text: str, remarks: list[str]) -> int | None:
    """Returns a number of clicks; None, with a remark, if it is none."""
    if is_empty(text):
        return None
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    if not _COUNT.fullmatch(text):
        remarks.append(f"{text[:40]!r} is no number of clicks: none are imported")
        return None
    found = int(re.sub(r"[, ]|\..*", "", text))
    if found < 0:
        remarks.append("a number of clicks below 0 is taken as 0")
    return max(0, found)


def limit(text: str) -> int | None:
    """Returns how many clicks a link takes."""
    if is_empty(text):
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise RowRefused(f"{text[:40]!r} is no number of clicks that the link takes")
    return int(text) or None


def flag(text: str) -> bool | None:
    """Returns what a cell with yes or no says."""
    lower = text.lower()
    if lower in _EMPTY:
        return None
    if lower not in _TRUE and lower not in _FALSE:
        raise RowRefused(f"{text[:40]!r} is neither yes nor no")
    return lower in _TRUE


def plain_line(text: str) -> str:
    """Returns a text in one line, without what a terminal would obey."""
    return _CONTROL.sub(" ", text).strip()


def line(text: str, chars_max: int, name: str, remarks: list[str]) -> str | None:
    """Returns a text for people in one line, cut to `chars_max`."""
    if is_empty(text):
        return None
    return _cut(plain_line(text), chars_max, name, remarks)


def lines(text: str, remarks: list[str]) -> str | None:
    """Returns a note, of several lines."""
    if is_empty(text):
        return None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _cut(_LINE_CONTROL.sub(" ", text).strip(), NOTE_CHARS_MAX, "note", remarks)


def _cut(text: str, chars_max: int, name: str, remarks: list[str]) -> str | None:
    if len(text) > chars_max:
        remarks.append(f"the {name} is cut to {chars_max:,} characters")
    return text[:chars_max].strip() or None


def tags(text: str, remarks: list[str], separator: str = "") -> tuple[str, ...]:
    """Returns tags: a JSON list, or separated by `separator`; "" is the first of | ; and , that there is."""
    if is_empty(text):
        return ()
    found = list(
        dict.fromkeys(filter(None, (_CONTROL.sub(" ", tag).strip() for tag in _split(text, separator))))
    )
    kept = [tag for tag in found if len(tag) <= TAG_CHARS_MAX][:TAGS_MAX]
    if len(kept) < len(found):
        remarks.append(
            f"{len(found) - len(kept)} tags are left out: it may have {TAGS_MAX} of {TAG_CHARS_MAX} characters"
        )
    return tuple(kept)


def _split(text: str, separator: str) -> list[str]:
    if text.startswith("["):
        try:
            listed = json.loads(text)
            if isinstance(listed, list) and all(isinstance(tag, str) for tag in listed):
                return listed
        except (ValueError, RecursionError):
            pass
    return text.split(separator or next((sign for sign in "|;," if sign in text), ","))


def code(text: str) -> str:
    """Returns a code as browsers and other services write it: percent-encoded parts are decoded once."""
    return unquote(text, errors="strict") if "%" in text else text


def host(text: str) -> str:
    """Returns a host name in lower case, without scheme, port and dot at its end; "" for none."""
    if is_empty(text):
        return ""
    text = text.partition("://")[2] or text
    return _PORT.sub("", text.partition("/")[0]).lower().rstrip(".")


def address(text: str) -> tuple[str, str]:
    """Returns the host, "" for none, and the code of a short URL, also one without a scheme."""
    try:
        parts = urlsplit(text if "://" in text or text.startswith("/") or "/" not in text else f"//{text}")
        named, found = host(parts.netloc.rpartition("@")[2]), code(parts.path.strip("/"))
    except (ValueError, UnicodeDecodeError):
        raise RowRefused("the short URL cannot be read") from None
    if not found or found == "_root":
        raise RowRefused("it is the address of the domain itself, which has no code")
    return named, found
