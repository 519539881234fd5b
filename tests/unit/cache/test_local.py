"""L1: bounds, ages, versions. The encoding of what Redis has."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.cache.codec import URL_CHARS_MAX, decode, decode_invalidation, encode, encode_invalidation, fits
from snapurl.cache.local import ENTRY_BYTES, LocalCache
from snapurl.codes import is_code
from snapurl.model import MISSING, CachedLink, LinkOptions

LINK = CachedLink("https://example.org/", 302, 3, None, deleted=False)


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock | None = None, links_max: int = 3, bytes_max: int = 2**20) -> LocalCache:
    made = LocalCache(links_max, bytes_max, 60.0, 2.0, clock or Clock())
    made.enable()
    return made


def test_a_link_that_is_used_stays() -> None:
    """A full cache evicts a link that has not been used since it last had to evict one."""
    local = cache()
    for code in "abc":
        local.put(code, LINK, local.generation)
    local.get("a")
    local.put("d", LINK, local.generation)
    assert [code for code in "abcd" if local.get(code)] == ["a", "c", "d"]


def test_large_links_push_out_as_many_small_ones_as_they_need() -> None:
    """A full cache evicts links until a large one has room, and takes none that is larger than itself."""
    local = cache(links_max=1_000, bytes_max=20 * (ENTRY_BYTES + len(LINK.url)))
    for number in range(25):
        local.put(f"small{number}", LINK, local.generation)
    assert len(local) == 20
    large = replace(LINK, url="https://example.org/" + "x" * 10 * ENTRY_BYTES)
    local.put("large", large, local.generation)
    assert local.get("large") == large
    assert 5 <= len(local) <= 10
    local.put("too large", replace(LINK, url="https://example.org/" + "x" * 2**16), local.generation)
    assert local.get("too large") is None


def test_popular_links_outlast_a_crowd_of_others() -> None:
    """Links that are asked for between the evictions stay, however many others are asked for once."""
    local = cache(links_max=100)
    popular = [f"popular{number}" for number in range(50)]
    for number in range(10_000):
        for code in (popular[number % 50], f"once{number}"):
            if local.get(code) is None:
                local.put(code, LINK, local.generation)
    assert all(map(local.get, popular))


def test_links_that_come_and_go_leave_nothing_behind() -> None:
    """However often links are dropped and put again, the cache takes no more memory."""
    local = cache(links_max=1_000)
    tracemalloc.start()
    try:
        for number in range(200_000):
            if number == 1_000:
                before = tracemalloc.get_traced_memory()[0]
            local.put(f"{number % 10}", LINK, local.generation)
            local.drop(f"{number % 10}", LINK.version + 1)
        assert tracemalloc.get_traced_memory()[0] < before + 20_000
    finally:
        tracemalloc.stop()


def test_options_take_their_share_of_the_memory() -> None:
    """A link comes out with its options; their texts count as the URL does, and are given back with the link."""
    local = cache(links_max=1_000, bytes_max=2**16)
    options = LinkOptions(expired_url="https://example.org/" + "x" * 2**15)
    local.put("a", replace(LINK, options=options), local.generation)
    assert local.get("a") == replace(LINK, options=options)
    assert local.bytes > 2**15
    local.put("b", replace(LINK, options=options), local.generation)
    assert local.get("a") is None
    local.drop("b", LINK.version + 1)
    assert local.bytes == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "get", "drop", "wait", "empty"]),
            st.sampled_from("abcdef"),
            st.integers(1, 4),
            st.integers(0, 3_000),
        )
    )
)
def test_the_bytes_are_those_of_the_links_that_are_there(steps: list[tuple[str, str, int, int]]) -> None:
    """Whatever is put, dropped, evicted or expires, the cache knows what it holds, and that is within its bound."""
    clock = Clock()
    local = cache(clock, links_max=4, bytes_max=4_000)
    for what, code, version, chars in steps:
        match what:
            case "put":
                url = "https://example.org/" + "x" * chars
                local.put(code, replace(LINK, url=url, version=version), local.generation)
            case "get":
                local.get(code)
            case "drop":
                local.drop(code, version)
            case "wait":
                clock.now += 35
            case _:
                local.enable()
        held = sum(ENTRY_BYTES + len(entry.url) for code in "abcdef" if (entry := local.entry(code)))
        assert held == local.bytes <= 4_000


def test_links_and_misses_are_forgotten_at_their_own_age() -> None:
    """A cached miss expires after its short age, a cached link after its longer one."""
    clock = Clock()
    local = cache(clock)
    local.put("link", LINK, local.generation)
    local.put("miss", MISSING, local.generation)
    clock.now += 3
    assert local.get("miss") is None
    assert local.get("link") == LINK
    clock.now += 60
    assert local.get("link") is None


def test_an_older_version_never_replaces_a_newer_one() -> None:
    """Putting version 2 over version 3 changes nothing; an invalidation for version 4 drops version 3."""
    local = cache()
    local.put("a", LINK, local.generation)
    local.put("a", replace(LINK, version=2), local.generation)
    assert local.get("a") == LINK
    local.drop("a", 3)
    assert local.get("a") == LINK
    local.drop("a", 4)
    assert local.get("a") is None


def test_what_was_read_before_the_cache_was_emptied_is_not_taken() -> None:
    """A link whose read was in flight when invalidations were lost is not cached after they are back."""
    local = cache()
    before = local.generation
    local.disable()
    local.put("a", LINK, local.generation)
    assert len(local) == 0
    local.enable()
    local.put("a", LINK, before)
    assert len(local) == 0


@given(
    url=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map("https://".__add__),
    version=st.integers(1, 2**40),
    expiry=st.none() | st.integers(0, 2**45),
    deleted=st.booleans(),
)
def test_a_link_comes_back_from_redis_as_it_went_in(
    url: str, version: int, expiry: int | None, deleted: bool
) -> None:
    """Encoding and decoding a cached link changes nothing."""
    link = CachedLink(url, 307, version, expiry, deleted)
    assert decode(encode(link)) == link


def test_a_miss_comes_back_from_redis_and_a_version_alone_says_nothing() -> None:
    """That there is no link is cached in Redis; of a link that is left out there is only the version."""
    assert decode(encode(MISSING)) == MISSING
    assert decode("17") is None
    assert not fits(replace(LINK, url="https://example.org/" + "x" * URL_CHARS_MAX))
    assert not fits(replace(LINK, options=LinkOptions(enabled=False)))


@given(st.text() | st.text("0123456789 -\r\n:/htps²٣"))
def test_nothing_from_redis_gets_unchecked_into_a_response(text: str) -> None:
    """A value in Redis is a link as the service writes it, or refused: no line break, other scheme or status."""
    try:
        found = decode(text)
    except ValueError:
        return
    if found is not None:
        assert encode(found) == text
        assert found.redirect_status in (301, 302, 307, 308)
        assert found.url.isascii() and found.url.isprintable() and " " not in found.url
        assert found.is_missing or found.url.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    "text",
    [
        "1 2 302 - 0 https://example.org/\r\nSet-Cookie: a=b",
        "1 2 302 - 0 https://example.org/\n",
        "1 2 302 - 0 javascript:alert(1)",
        "1 2 302 - 0 ",
        "0 2 302 - 0 https://example.org/",
        "1 2 200 - 0 https://example.org/",
        "1 2 302 - 2 https://example.org/",
        "² 2 302 - 0 https://example.org/",
        "1 2 302 -5 0 https://example.org/",
        "9999999999999999 2 302 - 0 https://example.org/",
        "1 2 302 - 0 https://example.org/" + "x" * URL_CHARS_MAX,
        "1 302 - 0 https://example.org/",
        "",
    ],
)
def test_a_malformed_value_is_refused(text: str) -> None:
    """Each part of a value is checked."""
    with pytest.raises(ValueError, match="not a link"):
        decode(text)


@given(
    st.text()
    | st.text("0123456789 ²٣abc\r\n")
    | st.builds(
        encode_invalidation, st.integers(0, 10**15 - 1), st.lists(st.from_regex("[a-c]{1,3}", fullmatch=True))
    )
)
def test_an_invalidation_is_a_version_and_codes_or_refused(text: str) -> None:
    """What is published on the channel is a version and codes as the service writes them, or refused."""
    try:
        codes, version = decode_invalidation(text)
    except ValueError:
        return
    assert codes and all(map(is_code, codes)) and 0 <= version < 10**15
    assert text.endswith(f" {' '.join(codes)}") and text.isascii()
