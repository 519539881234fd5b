"""Codes: random, derived, reserved."""

from __future__ import annotations

import random
import re
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from snapurl.codes import (
    ALPHABET,
    CODE_LENGTH,
    RESERVED,
    derived_code,
    is_code,
    is_reserved,
    random_code,
    random_codes,
)

NONCE = UUID("12345678-1234-5678-1234-567812345678")


def number_of(code: str) -> int:
    """Returns the number that encodes to `code`."""
    return sum(ALPHABET.index(character) * 62**place for place, character in enumerate(code))


def test_random_codes_are_seven_characters_of_base_62() -> None:
    """A random code needs no escaping anywhere and is a legal code."""
    for _ in range(200):
        assert re.fullmatch(r"[0-9A-Za-z]{7}", random_code())


def test_random_code_takes_its_randomness_from_outside() -> None:
    """The same source of randomness gives the same code."""
    assert random_code(random.Random(7).randrange) == random_code(random.Random(7).randrange)


def test_random_code_is_never_a_reserved_word() -> None:
    """A draw that gives a reserved word is repeated."""
    draws = iter((number_of("Metrics"), number_of("aaaaaab")))
    assert random_code(lambda _: next(draws)) == "aaaaaab"


def test_many_codes_come_from_one_draw() -> None:
    """Six bytes give one code each, all codes with the same probability: larger numbers are drawn again."""
    numbers = [number_of("aaaaaab"), 62**7 + number_of("ZyXwVu9"), 79 * 62**7 - 1, 79 * 62**7, 2**48 - 1]

    def draw(size: int) -> bytes:
        assert size == 6 * len(numbers)
        return b"".join(number.to_bytes(6, "big") for number in numbers)

    codes = random_codes(len(numbers), draw)
    assert codes[:3] == ["aaaaaab", "ZyXwVu9", "zzzzzzz"]
    assert all(re.fullmatch(r"[0-9A-Za-z]{7}", code) for code in codes[3:])
    assert random_codes(2, lambda _: numbers[3].to_bytes(6, "big") * 2)[0] != "0000000"


def test_many_random_codes_are_legal_and_never_a_reserved_word() -> None:
    """As many codes as requested are returned, all different and none reserved."""
    codes = random_codes(1_000)
    assert len(set(codes)) == 1_000 and all(re.fullmatch(r"[0-9A-Za-z]{7}", code) for code in codes)
    (code,) = random_codes(1, lambda _: number_of("Metrics").to_bytes(6, "big"))
    assert code != "Metrics" and is_code(code)


def test_derived_codes_are_fixed_for_ever() -> None:
    """Derived codes never change: old and new workers must derive the same code from one Idempotency-Key."""
    assert [derived_code(NONCE, attempt) for attempt in range(3)] == KNOWN


KNOWN = ["M88On2t", "9HdrE2T", "9rtPRHj"]


@given(st.uuids(), st.integers(0, 1000))
def test_derived_codes_are_legal(token: UUID, attempt: int) -> None:
    """Whatever the token, the derived code is a legal code of the usual form."""
    code = derived_code(token, attempt)
    assert len(code) == CODE_LENGTH and set(code) <= set(ALPHABET) and not is_reserved(code)


def test_attempts_of_one_nonce_differ() -> None:
    """A collision is resolved by the next attempt's code."""
    assert len({derived_code(NONCE, attempt) for attempt in range(100)}) == 100


def test_what_is_a_code() -> None:
    """A code consists of up to 64 letters, digits, `_` and `-`."""
    assert is_code("a") and is_code("A-z_9") and is_code("x" * 64)
    for text in ("", "x" * 65, "a b", "a.b", "ä", "a\n", "a/b", "a%41", "\x00"):
        assert not is_code(text)


def test_reserved_words_are_found_in_any_case() -> None:
    """No link can imitate a page of the service by a change of case."""
    assert is_reserved("API") and is_reserved("health") and not is_reserved("healthy")
    assert all(word == word.lower() for word in RESERVED)
