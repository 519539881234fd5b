"""L1: bounds, ages, versions."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from snapurl.cache.codec import decode, encode
from snapurl.cache.local import LocalCache
from snapurl.model import MISSING, CachedLink

LINK = CachedLink("https://example.org/", 302, 3, None, deleted=False)


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def cache(clock: Clock | None = None, links_max: int = 3) -> LocalCache:
    made = LocalCache(links_max, 60.0, 2.0, clock or Clock())
    made.enable()
    return made


def test_the_least_recently_used_link_goes_first() -> None:
    """A full cache evicts the least recently used link."""
    local = cache()
    for code in "abc":
        local.put(code, LINK, local.generation)
    local.get("a")
    local.put("d", LINK, local.generation)
    assert [code for code in "abcd" if local.get(code)] == ["a", "c", "d"]


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
    url=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
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
