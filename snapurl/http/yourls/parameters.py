"""The parameters of a request: those of its query and of its body, which is a form of either kind."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from snapurl.errors import BadRequest, UnsupportedMediaType

QUERY_CHARS_MAX = 20_000  # a URL may be in it, percent-encoded
FIELDS_MAX = 50
URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE)
_NAME = re.compile(
    r'(?:\A|\n)content-disposition:[ \t]*form-data\b[^\r\n]*?;[ \t]*name="([^"\r\n]*)"', re.IGNORECASE
)


def read_parameters(text: str) -> dict[str, str]:
    """Returns the parameters of a query. Raises BadRequest."""
    if len(text) > QUERY_CHARS_MAX:
        raise BadRequest(f"the query string may have at most {QUERY_CHARS_MAX} characters")
    return _pairs(text)


def read_body(raw: bytes, content_type: str) -> dict[str, str]:
    """Returns the parameters of a body. Raises BadRequest, UnsupportedMediaType."""
    media = content_type.partition(";")[0].strip().lower()
    if not raw or (media == "application/json" and raw.strip() in (b"{}", b"[]", b"null")):
        return {}  # some clients send an empty object with a GET
    try:
        if media == URLENCODED:
            return _pairs(raw.decode())
        if media == MULTIPART:
            return _parts(raw, content_type)
    except UnicodeDecodeError:
        raise BadRequest("the body is not UTF-8") from None
    raise UnsupportedMediaType(f"send the body as {URLENCODED} or as {MULTIPART}")


def _pairs(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError:  # too many, or not UTF-8
        raise BadRequest("the parameters cannot be read") from None


def _parts(raw: bytes, content_type: str) -> dict[str, str]:
    """Returns the fields of a multipart body, without files."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise BadRequest("the multipart body has no boundary")
    # The first part has no line before its delimiter.
    _, *parts = (b"\r\n" + raw).split(b"\r\n--" + (found[1] or found[2]).encode(), FIELDS_MAX + 2)
    if len(parts) > FIELDS_MAX + 1 or not parts or not parts[-1].startswith(b"--"):
        raise BadRequest("the multipart body is malformed, or has too many parts")
    fields = {}
    for part in parts[:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = _NAME.search(head.decode())
        if name is not None and b"filename=" not in head:
            fields[name[1]] = value.decode()
    return fields
