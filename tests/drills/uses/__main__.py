"""`make drill NAME=uses`: 10,000 requests over 64 connections for a link of 1,000 uses, on a cluster of its own."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

from snapurl.local.cluster import LocalCluster
from tests.drills.uses.drill import Plan, run


async def _alone(plan: Plan) -> None:
    with tempfile.TemporaryDirectory(prefix="snapurl-uses-") as home:
        async with LocalCluster(Path(home) / "cluster", durable=False, loopback=True) as cluster:
            print(await run(plan, cluster, dict(cluster.dsns), cluster.redis.url(0), Path(home)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Uses up a link while its slot moves and its shard is killed."
    )
    parser.add_argument("--uses", type=int, default=Plan.uses)
    parser.add_argument("--requests", type=int, default=Plan.requests)
    parser.add_argument("--connections", type=int, default=Plan.connections)
    parser.add_argument("--workers", type=int, default=Plan.workers, help="per service host")
    asked = parser.parse_args()
    asyncio.run(_alone(Plan(asked.uses, asked.requests, asked.connections, asked.workers)))


if __name__ == "__main__":
    main()
