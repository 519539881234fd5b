"""Every metric that the service exports, by its one name."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# store
POOL_WAITS_REFUSED = Counter(
    "snapurl_pool_waits_refused_total", "Calls refused because no connection came free in time.", ["shard"]
)
SHARD_ERRORS = Counter("snapurl_shard_errors_total", "Failed calls to a shard.", ["shard", "kind"])
FENCE_REFUSALS = Counter(
    "snapurl_fence_refusals_total", "Calls that a shard answered with moved or busy.", ["outcome"]
)

# resharding
RESHARD_MOVES = Counter("snapurl_reshard_slots_total", "Slots whose hand-off ended, by outcome.", ["outcome"])
RESHARD_ROWS = Counter("snapurl_reshard_rows_total", "Rows copied or deleted by the migrator.")
RESHARD_SLOTS_LEFT = Gauge(
    "snapurl_reshard_slots_left", "Slots that are not yet where the ring wants them.", multiprocess_mode="max"
)
RESHARD_SLOTS_IN_STATE = Gauge(
    "snapurl_reshard_slots_in_state",
    "Rows of slots on all shards, by state; a slot on its way has one on each side.",
    ["state"],
    multiprocess_mode="max",
)
RESHARD_ORPHANS = Gauge(
    "snapurl_reshard_orphan_slots",
    "Slots that were given away and whose rows are still there.",
    multiprocess_mode="max",
)
PAUSE_SECONDS = Histogram(
    "snapurl_reshard_pause_seconds",
    "For how long writes to a batch of slots were refused.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)

# http
HTTP_REQUESTS = Counter(
    "snapurl_http_requests_total",
    "Answers of the API and the pages, by route.",
    ["route", "method", "status"],
)
HTTP_SECONDS = Histogram(
    "snapurl_http_request_seconds",
    "Time from the parsed head to the answer, by route.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
REDIRECTS = Counter(
    "snapurl_redirects_total", "Answers to GET and HEAD of a code, by what came of it.", ["outcome"]
)
REDIRECTS_AHEAD = Counter(
    "snapurl_redirects_ahead_total",
    "Redirects answered ahead of Sanic: those of them that the fast path took.",
)
PROBLEMS = Counter("snapurl_problems_total", "Problem answers, by the end of their type.", ["slug"])
KEY_LOOKUPS = Counter(
    "snapurl_key_lookups_total", "Look-ups of API keys, by where the answer came from.", ["source"]
)
INTENTS_PURGED = Counter("snapurl_intents_purged_total", "Idempotency-Keys deleted after their 24 hours.")
LIMIT_REFUSALS = Counter("snapurl_limit_refusals_total", "Hits that a rate limit refused.", ["bucket"])
LIMIT_FALLBACKS = Counter(
    "snapurl_limit_fallbacks_total", "Hits counted per worker because Redis did not answer."
)

# caches
CACHE_ANSWERS = Counter("snapurl_cache_answers_total", "Look-ups of links, by what answered.", ["level"])
CACHE_UNTOLD = Gauge(
    "snapurl_cache_untold_changes",
    "Changes of links that Redis has yet to be told of.",
    multiprocess_mode="livesum",
)
REDIS_FAILURES = Counter("snapurl_redis_failures_total", "Failed calls to Redis, by kind.", ["call"])

# clicks
CLICKS_SHIPPED = Counter("snapurl_clicks_shipped_total", "Clicks that Redis has confirmed.")
CLICKS_DROPPED = Counter("snapurl_clicks_dropped_total", "Clicks lost because too many codes were held.")
CLICKS_HELD = Gauge(
    "snapurl_clicks_held", "Clicks that wait in workers for Redis.", multiprocess_mode="livesum"
)
CLICKS_APPLIED = Counter("snapurl_clicks_applied_total", "Clicks delivered to the shards.")
CLICK_BACKLOG_ROWS = Gauge(
    "snapurl_click_backlog_rows",
    "Rows read from the stream that no shard has taken.",
    multiprocess_mode="livesum",
)
CLICK_STREAM_ENTRIES = Gauge(
    "snapurl_click_stream_entries", "Entries in the click stream.", multiprocess_mode="livemax"
)
CLICK_LAG_SECONDS = Gauge(
    "snapurl_click_lag_seconds", "Age of the oldest entry that is not counted.", multiprocess_mode="livemax"
)
CLICK_ENTRIES_MALFORMED = Counter("snapurl_click_entries_malformed_total", "Entries that could not be read.")
