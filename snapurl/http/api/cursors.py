"""Cursors of lists: where a page ended, and a digest of the list that it belongs to. Opaque to clients."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from hashlib import sha256

from snapurl.codes import is_code
from snapurl.http.dispatch import query_error
from snapurl.http.schema.requests import CURSOR_CHARS_MAX
from snapurl.http.schema.responses import moment
from snapurl.model import PageKey

_DIGEST_BYTES = 6


def write_cursor(key: PageKey, of: str) -> str:
    """Returns a cursor of the list that `of` describes: which rows, in which order."""
    digest = base64.urlsafe_b64encode(sha256(of.encode()).digest()[:_DIGEST_BYTES]).decode()
    text = json.dumps([moment(key.at) if key.at else None, key.code, digest], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(text: str, of: str, *, has_time: bool = True) -> PageKey:
    """Returns where a page ended; `has_time` says whether the list is sorted by a time.

    Raises Invalid for anything that `write_cursor` did not write for this list.
    """
    bad = query_error("cursor", "is not a cursor that this service gave out for this list")
    if len(text) > CURSOR_CHARS_MAX:
        raise bad
    try:
        at, code, _ = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        key = PageKey(None if at is None else datetime.fromisoformat(at), code)
        is_genuine = is_code(code) and (at is not None) is has_time and write_cursor(key, of) == text
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise bad from None
    if not is_genuine:
        raise bad
    return key
