"""A small run of the drill; `make drill NAME=uses` is the whole one."""

from __future__ import annotations

from pathlib import Path

from snapurl.local.cluster import LocalCluster
from tests.drills.uses.drill import Plan, run

SMALL = Plan(uses=200, requests=800, connections=16, workers=1, pause_s=0.3)


async def test_a_link_gives_no_use_too_many_over_http(
    cluster: LocalCluster, fresh_shards: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    """Two service hosts give at most `max_clicks` redirects and each is counted, while the slot moves twice and its
    shard is killed."""
    print(await run(SMALL, cluster, fresh_shards, redis_url, tmp_path))
