"""Arrays reach a shard as they are, whichever container holds them."""

from __future__ import annotations

import asyncpg
import pytest

from tests.integration.store.conftest import Store


@pytest.mark.parametrize(
    "given",
    [["b", "a", "1"], ("b", "a", "1"), {"b": 1, "a": 2, "1": 3}.keys(), {1: "b", 2: "a", 3: "1"}.values()],
    ids=lambda given: type(given).__name__,
)
async def test_an_array_may_be_any_container(store: Store, given: object) -> None:
    """A list, a tuple or the view of a dictionary makes the same array, in its order."""
    rows = await store.shards.pool("db0").fetch("SELECT $1::text[] AS it", given)
    assert rows[0]["it"] == ["b", "a", "1"]


async def test_elements_keep_their_types(store: Store) -> None:
    """Text, also empty or like an array, null, bytes, and arrays of arrays come back as they were sent."""
    texts, blobs, nested = ["", "{a,b}", None, '"\\'], [b"", b"{}", None], [[1, 2], [3, None]]
    rows = await store.shards.pool("db0").fetch(
        "SELECT $1::text[] AS texts, $2::bytea[] AS blobs, $3::int[] AS nested", texts, blobs, nested
    )
    assert (rows[0]["texts"], rows[0]["blobs"], rows[0]["nested"]) == (texts, blobs, nested)


@pytest.mark.parametrize(
    "given", ["abc", b"abc", {"a": 1}, 7, object()], ids=lambda given: type(given).__name__
)
async def test_what_is_no_container_is_refused(store: Store, given: object) -> None:
    """A string or a mapping in place of an array is an error, not an array of its parts."""
    with pytest.raises(asyncpg.DataError):
        await store.shards.pool("db0").fetch("SELECT $1::text[]", given)
