"""The language of a click, from Accept-Language."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.languages import language_of


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, ""),
        (b" ", ""),
        (b"de", "de"),
        (b"de-AT,de;q=0.9,en;q=0.8", "de-AT"),
        (b"en;q=0.5, pt-br", "pt-BR"),
        (b"zh-Hant-TW", "zh-TW"),
        (b"es-419", "es-419"),
        (b"sr-Latn", "sr"),
        (b"de-DE-1996", "de-DE"),
        (b"*", "*"),
        (b"x-klingon", "*"),
        (b"i-default", "*"),
        ("\u00fc".encode(), "*"),
    ],
)
def test_a_language_is_the_preferred_one_with_its_region(header: bytes | None, language: str) -> None:
    """The language is the preferred one of the header, with its region and nothing else."""
    assert language_of(header) == language


@given(st.binary(max_size=600) | st.from_regex(rb"[a-zA-Z0-9,;=. -]{0,80}", fullmatch=True))
def test_whatever_is_said_is_a_language_or_another(header: bytes) -> None:
    """No header raises an error, and what leaves is a language with a region at most, or `*`."""
    assert re.fullmatch(r"(?:[a-z]{2,3}(?:-(?:[A-Z]{2}|[0-9]{3}))?|\*)?", language_of(header))
