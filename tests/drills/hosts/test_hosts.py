"""A short run on separate hosts; `make drill NAME=hosts` runs every scenario, with longer faults."""

from __future__ import annotations

import os
import random

from tests.drills.hosts.__main__ import run_isolated
from tests.drills.hosts.network import why_not
from tests.support.requirements import skip_without

FAULT_S = 1.2
SHORT = ("replies_of_one_shard_vanish", "redis_loses_everybody", "a_shard_is_added_meanwhile")


async def test_the_cluster_survives_a_network_that_fails() -> None:
    """Histories, clicks and owners stay correct on a cut, slow or lossy network, also while a shard is added."""
    if reason := why_not():
        skip_without("network namespaces", reason)
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={seed}")
    code, said = await run_isolated("--seed", str(seed), "--fault-s", str(FAULT_S), *SHORT, timeout_s=180.0)
    assert code == 0, said
    assert "all is well" in said
