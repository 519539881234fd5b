"""Every metric that the service exports, by its one name.

What is measured on hot paths goes through a `Timing`: observations are summed up in this process and told to the
library a few times per second (`settle_all`), since telling it of one costs as much as looking a link up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, start_http_server

from snapurl.errors import ConfigError

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series for each, which the workers together do not have either

# From what a cached redirect takes to the longest bound of a request.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# the process
BUILD = Gauge(
    "snapurl_build_info", "1, with the version that runs.", ["version"], multiprocess_mode="livemax"
)
WORKERS = Gauge("snapurl_workers", "HTTP workers that run.", multiprocess_mode="livesum")
CHILDREN_ENDED = Counter(
    "snapurl_children_ended_total", "Workers, and in `snapurl up` other children, that ended unasked."
)
MEMORY_BYTES = Gauge("snapurl_memory_bytes", "Resident memory, of all workers.", multiprocess_mode="livesum")
CPU_SECONDS = Counter("snapurl_cpu_seconds_total", "Time on a processor, of all workers.")
LOOP_LAG_SECONDS = Histogram(
    "snapurl_loop_lag_seconds",
    "How late a worker came back to what was due: what a request waits before it is looked at.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

# store
SHARD_UP = Gauge(
    "snapurl_shard_up",
    "1 if the shard answered when it was last asked, at least every 5 s; 0 if one worker finds that it did not.",
    ["shard"],
    multiprocess_mode="livemin",
)
SHARD_ATTESTED = Gauge(
    "snapurl_shard_vouched",
    "1 if the shard serves; 0 if its server has started anew and waits to be compared with the others.",
    ["shard"],
    multiprocess_mode="livemin",
)
POOL_WAIT_SECONDS = Histogram(
    "snapurl_pool_wait_seconds",
    "Wait for a connection to a shard, a new one's making included, and waits that were in vain.",
    ["shard"],
    buckets=SECONDS,
)
POOL_WAITING = Gauge(
    "snapurl_pool_waiting", "Calls that wait for a connection now.", ["shard"], multiprocess_mode="livesum"
)
POOL_CONNECTIONS = Gauge(
    "snapurl_pool_connections",
    "Connections to a shard: in use, idle, and the most that there may be.",
    ["shard", "state"],
    multiprocess_mode="livesum",
)
POOL_WAITS_REFUSED = Counter(
    "snapurl_pool_waits_refused_total", "Calls refused because no connection came free in time.", ["shard"]
)
STATEMENT_SECONDS = Histogram(
    "snapurl_statement_seconds",
    "Time of a call on a connection to a shard, also of one that failed.",
    ["shard"],
    buckets=SECONDS,
)
SHARD_ERRORS = Counter("snapurl_shard_errors_total", "Failed calls to a shard.", ["shard", "kind"])
FENCE_REFUSALS = Counter(
    "snapurl_fence_refusals_total", "Calls that a shard answered with moved or busy.", ["outcome"]
)
WRITES_REFUSED = Counter(
    "snapurl_writes_refused_total",
    "Writes of links that were not, or perhaps not, done, by cause.",
    ["cause"],
)
# By process, since a gauge without labels is 0 in every process that never sets it, and the least is looked at.
TOPOLOGY_VERSION = Gauge(
    "snapurl_topology_version",
    "The newest topology that every process of a kind knows: worker, clicks, migrator.",
    ["process"],
    multiprocess_mode="livemin",
)
SLOTS_IN_HAND_OFF = Gauge(
    "snapurl_slots_in_hand_off", "Slots that leave a shard, as workers see it.", multiprocess_mode="livemax"
)
SLOTS_UNKNOWN = Gauge(
    "snapurl_slots_unknown", "Slots whose shard a worker has not heard of yet.", multiprocess_mode="livemax"
)

# resharding
RESHARD_MOVES = Counter("snapurl_reshard_slots_total", "Slots whose hand-off ended, by outcome.", ["outcome"])
RESHARD_ROWS = Counter("snapurl_reshard_rows_total", "Rows copied or deleted by the migrator.")
RESHARD_SLOTS_LEFT = Gauge(
    "snapurl_reshard_slots_left",
    "Slots that are not yet where the ring wants them.",
    multiprocess_mode="livemax",
)
RESHARD_LAG_ROWS = Gauge(
    "snapurl_reshard_lag_rows",
    "Rows that changed at the source while the batches under way were copied, at the last look at each.",
    multiprocess_mode="livemax",
)
RESHARD_SLOTS_IN_STATE = Gauge(
    "snapurl_reshard_slots_in_state",
    "Rows of slots on all shards, by state; a slot on its way has one on each side.",
    ["state"],
    multiprocess_mode="livemax",
)
RESHARD_ORPHANS = Gauge(
    "snapurl_reshard_orphan_slots",
    "Slots that were given away and whose rows are still there.",
    multiprocess_mode="livemax",
)
RESHARD_WORKING = Gauge(
    "snapurl_reshard_working", "1 if this migrator works, 0 if it stands by.", multiprocess_mode="livemax"
)
RESHARD_PAUSED = Gauge(
    "snapurl_reshard_paused", "1 if an operator has paused resharding.", multiprocess_mode="livemax"
)
RESHARD_MOVE_SECONDS = Gauge(
    "snapurl_reshard_move_seconds",
    "Age of the oldest move under way; 0: none is.",
    multiprocess_mode="livemax",
)
PAUSE_SECONDS = Histogram(
    "snapurl_reshard_pause_seconds",
    "For how long writes to a batch of slots were refused.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)

# http
HTTP_REQUESTS = Counter(
    "snapurl_http_requests_total",
    "Answers of the API and the pages, by route; `other` to what reached no route of ours.",
    ["route", "method", "status"],
)
HTTP_SECONDS = Histogram(
    "snapurl_http_request_seconds",
    "Time from the parsed head to the answer, by route and class of status.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
REDIRECT_SECONDS = Histogram(
    "snapurl_redirect_seconds",
    "Time from the bytes of a redirect's head to the answer; by path, ahead of Sanic or through it.",
    ["path"],
    buckets=SECONDS,
)
REDIRECTS = Counter(
    "snapurl_redirects_total", "Answers to GET and HEAD of a code, by what came of it.", ["outcome"]
)
REDIRECTS_AHEAD = Counter(
    "snapurl_redirects_ahead_total",
    "Redirects answered ahead of Sanic: those of them that the fast path took.",
)
CREATES_AHEAD = Counter(
    "snapurl_creates_ahead_total", "Answers to creates that the fast path took, ahead of Sanic."
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

CONNECTIONS = Gauge(
    "snapurl_connections", "Connections of clients that are open.", multiprocess_mode="livesum"
)
CONNECTIONS_REFUSED = Counter(
    "snapurl_connections_refused_total",
    "Connections refused because there were too many: of one address, or of all.",
    ["whose"],
)
FAIR_QUEUE_REFUSED = Counter(
    "snapurl_turns_refused_total", "Requests refused because those before them took too long."
)
BODIES_REFUSED = Counter(
    "snapurl_bodies_refused_total", "Requests refused because the bodies of others took all the room."
)

# caches
CACHE_ANSWERS = Counter(
    "snapurl_cache_answers_total",
    "Look-ups of links, by what answered: l1, l2 (Redis), shard; none: the shard has no such link; failed.",
    ["level"],
)
CACHE_INVALIDATIONS_PENDING = Gauge(
    "snapurl_cache_untold_changes",
    "Changes of links that Redis has yet to be told of.",
    multiprocess_mode="livesum",
)
L1_LINKS = Gauge("snapurl_l1_links", "Links in the caches of all workers.", multiprocess_mode="livesum")
REDIS_UP = Gauge(
    "snapurl_redis_up",
    "1 if Redis tells every worker of changes, which is seen every 0.5 s; of clicks: if it answers the consumer.",
    ["process"],
    multiprocess_mode="livemin",
)
REDIS_SECONDS = Histogram(
    "snapurl_redis_seconds", "Time of a call to Redis, also of one that failed.", ["call"], buckets=SECONDS
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
CLICK_CONSUMER_WORKING = Gauge(
    "snapurl_click_consumer_working",
    "1 if this click consumer works, 0 if it stands by.",
    multiprocess_mode="livemax",
)
CLICK_ENTRIES_MALFORMED = Counter("snapurl_click_entries_malformed_total", "Entries that could not be read.")


# A counter that is first seen at 1 has not increased, for Prometheus: what can be counted is there from the start.
SHARD_ERROR_KINDS = ("connect", "down", "late", "lost", "refused", "rights", "wrong")
_KNOWN: tuple[tuple[Counter, tuple[str, ...]], ...] = (
    (FENCE_REFUSALS, ("moved", "busy")),
    (WRITES_REFUSED, ("hand-off", "no-connection", "shard", "outcome-unknown")),
    (RESHARD_MOVES, ("finished", "given up")),
    (LIMIT_REFUSALS, ("create", "missing")),
    (CONNECTIONS_REFUSED, ("address", "all")),
    (KEY_LOOKUPS, ("remembered", "shard", "stale")),
    (
        REDIS_FAILURES,
        ("get", "put", "changed", "clear", "decode", "feed", "limit", "ship", "consume", "patience"),
    ),
)
for _counter, _values in _KNOWN:
    for _value in _values:
        _counter.labels(_value)


class Timing:
    """One series of a histogram, told in sums. An observation is a look into a short list and two additions."""

    __slots__ = ("_bounds", "_counts", "_seconds", "_series")

    def __init__(self, series: Any) -> None:
        self._series = series
        self._bounds: tuple[float, ...] = tuple(series._upper_bounds)
        self._counts = [0] * len(self._bounds)
        self._seconds = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def observe_many(self, count: int, seconds: float) -> None:
        """So many that took `seconds` each."""
        self._counts[bisect_left(self._bounds, seconds)] += count
        self._seconds += count * seconds

    def observe_quick(self, count: int, seconds: float) -> None:
        """So many that each took less than the first bound, and `seconds` together."""
        self._counts[0] += count
        self._seconds += seconds

    def settle(self) -> None:
        """Tells the library, which has no way of its own to be told of many: a test holds this to it."""
        for place, count in enumerate(self._counts):
            if count:
                self._series._buckets[place].inc(count)
                self._counts[place] = 0
        if self._seconds:
            self._series._sum.inc(self._seconds)
            self._seconds = 0.0


_TIMINGS: list[Timing] = []  # of this process, as the library keeps its metrics


@cache
def timing(histogram: Histogram, *labels: str) -> Timing:
    """The one `Timing` of a series; made once, so that it may be asked for wherever the series is used."""
    made = Timing(histogram.labels(*labels) if labels else histogram)
    _TIMINGS.append(made)
    return made


@contextmanager
def timed(series: Timing) -> Iterator[None]:
    """Observes how long what is inside takes, also if it raises."""
    began = monotonic()
    try:
        yield
    finally:
        series.observe(monotonic() - began)


def settle_all() -> None:
    """Tells the library what all timings have seen since the last time."""
    for timing in _TIMINGS:
        timing.settle()


def serve_metrics(port: int, host: str) -> None:
    """Serves this process's metrics at `/metrics` on `host`; port 0: nowhere. Raises ConfigError."""
    if not port:
        return
    try:
        start_http_server(port, host)
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
