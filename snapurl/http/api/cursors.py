"""Cursors: where a page ended. Opaque to clients.

A cursor of a list of links also has a digest of the list that it belongs to.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar

from snapurl.accounts import ACCOUNT_ID_PATTERN
from snapurl.codes import is_key
from snapurl.http.dispatch import query_error
from snapurl.http.schema.requests import CURSOR_CHARS_MAX
from snapurl.http.schema.responses import moment
from snapurl.http.schema.webhooks import MESSAGE_ID_PATTERN
from snapurl.model import LinkOrder, PageKey, RowKey

ROWS_CURSOR_CHARS_MAX = 100

CLICKS_MAX = 2**63 - 1  # PostgreSQL's bigint
_DIGEST_BYTES = 6
_ROW_ID = re.compile(f"{ACCOUNT_ID_PATTERN.pattern}|{MESSAGE_ID_PATTERN}")

T = TypeVar("T")


def write_cursor(key: PageKey, of: str) -> str:
    """Returns a cursor of the list that `of` describes: which rows, in which order."""
    digest = base64.urlsafe_b64encode(sha256(of.encode()).digest()[:_DIGEST_BYTES]).decode()
    clicks = () if key.clicks is None else (str(key.clicks),)
    return _encode(moment(key.at) if key.at else None, key.code, digest, *clicks)


def read_cursor(text: str, of: str, order: LinkOrder) -> PageKey:
    """Returns where a page of a list in that order ended.

    Raises Invalid for anything that `write_cursor` did not write for this list.
    """

    def read(at: Any, code: Any, _: Any, clicks: Any = None) -> tuple[PageKey, bool]:
        key = PageKey(
            None if at is None else datetime.fromisoformat(at), code, None if clicks is None else int(clicks)
        )
        return key, is_key(code) and _fits(key, order) and write_cursor(key, of) == text

    return _decode(text, CURSOR_CHARS_MAX, read, "is not a cursor that this service gave out for this list")


def _fits(key: PageKey, order: LinkOrder) -> bool:
    """Whether a page of a list in that order may end there."""
    match order:
        case LinkOrder.CREATED | LinkOrder.CHANGED:
            return key.at is not None and key.clicks is None
        case LinkOrder.CODE:
            return key.at is None and key.clicks is None
        case LinkOrder.CLICKS:
            return (
                key.clicks is not None
                and 0 <= key.clicks <= CLICKS_MAX
                and (key.at is None) is bool(key.clicks)
            )


def write_row_cursor(end: RowKey) -> str:
    """Returns a cursor of a list of keys, accounts or messages."""
    return _encode(moment(end.created_at), end.row_id)


def read_row_cursor(text: str) -> RowKey:
    """Returns where a page ended. Raises Invalid for anything that `write_row_cursor` did not write."""

    def read(created_at: Any, row_id: Any) -> tuple[RowKey, bool]:
        end = RowKey(datetime.fromisoformat(created_at), row_id)
        return end, bool(_ROW_ID.fullmatch(row_id)) and write_row_cursor(end) == text

    return _decode(text, ROWS_CURSOR_CHARS_MAX, read, "is not a cursor that this service gave out")


def _encode(*parts: str | None) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(text: str, chars_max: int, read: Callable[..., tuple[T, bool]], detail: str) -> T:
    """Returns what `read` makes of the parts of a cursor. Raises Invalid unless it says that they are genuine."""
    bad = query_error("cursor", detail)
    if len(text) > chars_max:
        raise bad
    try:
        found, is_genuine = read(*json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))))
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise bad from None
    if not is_genuine:
        raise bad
    return found
