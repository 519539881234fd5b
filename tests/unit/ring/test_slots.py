"""Slots: known answers and the range."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.slots import SLOT_COUNT, slot_of

# SHA-256("abc") is the example of FIPS 180-2: ba7816bf…; ba78 is 1011 1010 0111 1000, and its first
# 14 bits are 10 1110 1001 1110 = 2e9e. SHA-256("") begins with e3b0, whose first 14 bits are 38ec.
KNOWN = {"abc": 0x2E9E, "": 0x38EC, "a": 0xCA97 >> 2, "Zz_-9": 0xD3AC >> 2}


@pytest.mark.parametrize(("code", "slot"), KNOWN.items())
def test_known_answers(code: str, slot: int) -> None:
    """A code's slot is the first 14 bits of its SHA-256, big-endian."""
    assert slot_of(code) == slot


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_range(code: str) -> None:
    """Every string has a slot from 0 to 16,383."""
    assert 0 <= slot_of(code) < SLOT_COUNT == 16_384


def test_case_matters() -> None:
    """Codes that differ in case only are different keys."""
    assert slot_of("a") != slot_of("A")
