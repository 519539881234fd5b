"""Countries and cities of clicks, from the request to the click stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from snapurl.clicks.stream import decode_entry, name_key
from snapurl.errors import ConfigError
from tests.integration.http.conversations import head
from tests.integration.http.paths import connected, read_all
from tests.integration.http.test_fast_states import BOTH, Open, loop, on_loop, open_side, ready, send
from tests.unit.clicks.test_places import NESTED, write

__all__ = ["loop", "open_side"]


@BOTH
@on_loop
async def test_a_click_has_the_place_of_its_client(
    open_side: Open, is_fast: bool, tmp_path: Path, redis_url: str
) -> None:
    """A click has the country and the city of the client that a trusted proxy names. A country that the proxy names
    comes before that of the file."""
    write(tmp_path / "geo.mmdb", {"198.51.100.0/24": NESTED})
    places = {"geo_file": tmp_path / "geo.mmdb", "geo_header": "cf-ipcountry", "proxies": "127.0.0.1"}
    client = b"X-Forwarded-For: 192.0.2.1, 198.51.100.7"
    async with open_side(is_fast, **places) as service:
        await ready(service)
        async with connected(service.port) as connection:
            await send(connection, head(client) + head(client, b"CF-IPCountry: be", b"connection: close"))
            await read_all(connection)
    async with Redis.from_url(redis_url) as redis:
        (name,) = await redis.keys(name_key("*"))
        stream = await redis.get(name)
        assert stream is not None
        entries: Any = await redis.xrange(stream)
    (row,) = decode_entry(*entries[0])
    assert row.sources == {"country": {"FR": 1, "BE": 1}, "city": {"Paris, FR": 1}, "channel": {"link": 2}}


@on_loop
async def test_a_geo_file_that_cannot_be_used_stops_the_start(open_side: Open, tmp_path: Path) -> None:
    """A service with a geo file that is not there does not start, and says which file it is."""
    with pytest.raises(ConfigError, match=r"SNAPURL_GEO_FILE: .*none\.mmdb cannot be used"):
        async with open_side(geo_file=tmp_path / "none.mmdb"):
            pass
