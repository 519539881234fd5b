"""A short run of the history check; `make drill NAME=soak` runs it for longer."""

from __future__ import annotations

import os
import random
from pathlib import Path

from snapurl.local.cluster import LocalCluster
from tests.drills.history.soak import Plan, soak

SECONDS = 15.0


async def test_histories_are_linearizable_while_shards_come_and_go(
    cluster: LocalCluster, redis_url: str, tmp_path: Path
) -> None:
    """Eight clients of two workers see a linearizable history of each link while shards are added and drained."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    figures = await soak(Plan(SECONDS, seed, weight=0.02), cluster, redis_url, tmp_path)
    print(figures)
    assert figures.operations > 500
    assert figures.topologies == 4
    assert figures.migrators_killed > 0
    assert figures.clicks > 0
