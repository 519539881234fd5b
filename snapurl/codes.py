"""Codes: the short part of a link. Pure; randomness is passed in.

A code is case-sensitive, `[A-Za-z0-9_-]`, 1 to 64 characters: an alias chosen by the client, or 7 random characters
of base 62 (3.5 * 10^12 codes). First path segments of the service are reserved.

A link is stored, cached and counted under its key. The key of a link of the default domain is its code, that of a
link of another domain is `domain/code`. No code has a slash, so no two links have the same key. Below the HTTP
layer a key is what the names `code` stand for.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable
from hashlib import sha256
from uuid import UUID

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CODE_LENGTH = 7
_CODES = len(ALPHABET) ** CODE_LENGTH
_PAIRS = tuple(low + high for high in ALPHABET for low in ALPHABET)  # two digits of base 62 at once
_DRAWN_BYTES = 6
_DRAWN_BELOW = (1 << 8 * _DRAWN_BYTES) // _CODES * _CODES  # larger numbers would make some codes more likely
CODE_CHARS_MAX = 64
CODE_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
DOMAIN_CHARS_MAX = (
    100  # as many as DNS allows would make a key, and with it a cached link, several times as large
)
_KEY = re.compile(rf"(?:[a-z0-9._-]{{1,{DOMAIN_CHARS_MAX}}}/)?{CODE_PATTERN.pattern}")

# First path segments that the service uses or may use later. The comparison ignores case, so that no link can
# imitate `/Health`. Names with a dot (robots.txt) are not codes anyway. `bulk` and `batch` are reserved because
# /api/v1/links/bulk and /api/v1/links/batch would hide links with these codes from the API.
RESERVED = frozenset(
    re.findall(
        r"\S+",
        """about account accounts admin api app assets auth batch bulk dashboard docs favicon health help home index
        links login logout metrics oauth openapi password ping privacy problems public register rest robots settings
        setup signin signup sitemap static status support terms ui users version well-known""",
    )
)


def is_code(text: str) -> bool:
    """Whether `text` could be the code of a link."""
    return CODE_PATTERN.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether `text` could be the key of a link."""
    return _KEY.fullmatch(text) is not None


def key_of(domain: str, code: str) -> str:
    """Returns the key of a link; `domain` is "" for the default domain."""
    return f"{domain}/{code}" if domain else code


def split_key(key: str) -> tuple[str, str]:
    """Returns the domain, "" for the default domain, and the code of a link."""
    domain, _, code = key.rpartition("/")
    return domain, code


def is_reserved(code: str) -> bool:
    """Whether `code` is reserved for the service."""
    return code.lower() in RESERVED


def random_code(below: Callable[[int], int] = secrets.randbelow) -> str:
    """Returns an unpredictable code; `below(n)` draws a number from 0 to n - 1."""
    while True:
        _, code = _take_code(below(_CODES))
        if not is_reserved(code):
            return code


def random_text(length: int, choose: Callable[[str], str] = secrets.choice) -> str:
    """Returns an unpredictable text of base 62; `choose` draws one of the characters."""
    return "".join(choose(ALPHABET) for _ in range(length))


def random_codes(count: int, draw: Callable[[int], bytes] = os.urandom) -> list[str]:
    """Returns `count` unpredictable codes; `draw(n)` returns n random bytes and is called once."""
    drawn = draw(_DRAWN_BYTES * count)
    return [
        _drawn_code(int.from_bytes(drawn[first : first + _DRAWN_BYTES], "big"))
        for first in range(0, len(drawn), _DRAWN_BYTES)
    ]


def _drawn_code(number: int) -> str:
    _, code = _take_code(number)
    return random_code() if number >= _DRAWN_BELOW or is_reserved(code) else code


def derived_code(token: UUID, attempt: int) -> str:
    """Returns the code of attempt 0, 1, … of an idempotent create: a function of `token` and `attempt` only.

    The 256 bits of SHA-256(token || attempt) contain several codes; the first that is not reserved is taken.
    """
    number = int.from_bytes(sha256(token.bytes + attempt.to_bytes(4, "big")).digest(), "big")
    while True:
        number, code = _take_code(number)
        if not is_reserved(code):
            return code


def _take_code(number: int) -> tuple[int, str]:
    """Returns the code of the lowest base 62 digits of `number`, and the number without them first."""
    number, first = divmod(number, len(_PAIRS))
    number, second = divmod(number, len(_PAIRS))
    number, third = divmod(number, len(_PAIRS))
    number, last = divmod(number, len(ALPHABET))
    return number, _PAIRS[first] + _PAIRS[second] + _PAIRS[third] + ALPHABET[last]
