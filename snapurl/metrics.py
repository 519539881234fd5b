"""Every metric that the service exports, by its one name."""

from __future__ import annotations

from prometheus_client import Counter

# store
POOL_WAITS_REFUSED = Counter(
    "snapurl_pool_waits_refused_total", "Calls refused because no connection came free in time.", ["shard"]
)
SHARD_ERRORS = Counter("snapurl_shard_errors_total", "Failed calls to a shard.", ["shard", "kind"])
FENCE_REFUSALS = Counter(
    "snapurl_fence_refusals_total", "Calls that a shard answered with moved or busy.", ["outcome"]
)
