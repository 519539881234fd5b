"""All metrics that the programs export.

Theory. Durations go through a `Timing`, which counts observations in plain Python fields and adds them to the
histogram about once a second (`flush_timings`). The reason is cost: where processes share metrics (multiprocess
mode), `Histogram.observe` takes 2.4 us, most of a redirect from L1, and `Timing.observe` takes 0.17 us.

prometheus_client has no public way to add many observations at once, and multiprocess mode does not support custom
collectors. So `Timing` uses three private fields of a histogram's child: `_upper_bounds`, and `inc` of each of
`_buckets` (not cumulative) and of `_sum`. They are the same in versions 0.21 to 0.26, which were tested. A test
compares the result with `Histogram.observe`, and another names the field that a later version has renamed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

from snapurl.model import SourceKind

# `_created` series would be one more per metric; multiprocess mode does not have them anyway.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Bucket bounds: from the time of a cached redirect to the maximum time of a request.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

# the process
BUILD = Gauge(
    "snapurl_build_info",
    "Always 1; the label is the version of the program.",
    ["version"],
    multiprocess_mode="livemax",
)
WORKERS = Gauge("snapurl_workers", "Running HTTP workers.", multiprocess_mode="livesum")
CHILDREN_ENDED = Counter(
    "snapurl_children_ended_total",
    "Workers, and in `snapurl up` other child processes, that ended unexpectedly.",
)
MEMORY_BYTES = Gauge("snapurl_memory_bytes", "Resident memory of all workers.", multiprocess_mode="livesum")
CPU_SECONDS = Counter("snapurl_cpu_seconds_total", "CPU time of all workers.")
LOOP_LAG_SECONDS = Histogram(
    "snapurl_loop_lag_seconds",
    "Delay of timers on the event loop: how long a request waits before the worker reads it.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

# store
SHARD_UP = Gauge(
    "snapurl_shard_up",
    "1 if the shard answered its last check, at least every 5 s; 0 if it did not in at least one worker.",
    ["shard"],
    multiprocess_mode="livemin",
)
SHARD_ATTESTED = Gauge(
    "snapurl_shard_attested",
    "1 if the shard is attested and serves; 0 if its server has restarted and is not yet attested.",
    ["shard"],
    multiprocess_mode="livemin",
)
POOL_WAIT_SECONDS = Histogram(
    "snapurl_pool_wait_seconds",
    "Wait for a connection to a shard, including connecting and waits that timed out.",
    ["shard"],
    buckets=SECONDS,
)
POOL_WAITING = Gauge(
    "snapurl_pool_waiting", "Calls that wait for a connection.", ["shard"], multiprocess_mode="livesum"
)
POOL_CONNECTIONS = Gauge(
    "snapurl_pool_connections",
    "Connections to a shard by state: in use, idle, and the maximum.",
    ["shard", "state"],
    multiprocess_mode="livesum",
)
POOL_WAITS_REFUSED = Counter(
    "snapurl_pool_waits_refused_total", "Calls refused because no connection became free in time.", ["shard"]
)
STATEMENT_SECONDS = Histogram(
    "snapurl_statement_seconds",
    "Time of a call to a shard, including failed calls.",
    ["shard"],
    buckets=SECONDS,
)
SHARD_ERRORS = Counter(
    "snapurl_shard_errors_total", "Failed calls to a shard, by kind of failure.", ["shard", "kind"]
)
FENCE_REFUSALS = Counter(
    "snapurl_fence_refusals_total", "Calls that the fence of a shard refused with moved or busy.", ["outcome"]
)
WRITES_REFUSED = Counter(
    "snapurl_writes_refused_total",
    "Writes of links that failed or whose outcome is unknown, by cause.",
    ["cause"],
)
# Labelled by process: an unlabelled gauge is 0 in each process that never sets it, and the minimum is exported.
TOPOLOGY_VERSION = Gauge(
    "snapurl_topology_version",
    "Lowest topology version known to the processes of a kind: worker, clicks, migrator.",
    ["process"],
    multiprocess_mode="livemin",
)
SLOTS_IN_HAND_OFF = Gauge(
    "snapurl_slots_in_hand_off", "Slots in hand-off, as workers see it.", multiprocess_mode="livemax"
)
SLOTS_UNKNOWN = Gauge(
    "snapurl_slots_unknown", "Slots whose owner a worker does not know yet.", multiprocess_mode="livemax"
)

# targets
BLOCKED_HOSTS = Gauge(
    "snapurl_blocked_hosts",
    "Hosts in the list of blocked hosts, in the worker with most.",
    multiprocess_mode="livemax",
)
BLOCKLIST_FAULT = Gauge(
    "snapurl_blocklist_fault",
    "1 if a worker cannot read SNAPURL_BLOCKED_HOSTS_FILE and goes on with the list before it, if it has one.",
    multiprocess_mode="livemax",
)
BLOCKLIST_LOADS = Counter(
    "snapurl_blocklist_loads_total",
    "Times that a worker has read the list of blocked hosts: loaded, failed.",
    ["outcome"],
)
TARGETS_REFUSED = Counter(
    "snapurl_targets_refused_total",
    "Links that may not lead where they should, by what refused them: host, command.",
    ["by"],
)
URL_CHECK_SECONDS = Histogram(
    "snapurl_url_check_seconds",
    "Time until SNAPURL_URL_CHECK_COMMAND has answered a URL, without cached answers.",
    buckets=SECONDS,
)
URL_CHECK_FAILURES = Counter(
    "snapurl_url_check_failures_total",
    "URLs that the command has not answered, by why: answer, busy, down, timeout.",
    ["kind"],
)

# resharding
RESHARD_MOVES = Counter("snapurl_reshard_slots_total", "Slots whose hand-off ended, by outcome.", ["outcome"])
RESHARD_ROWS = Counter("snapurl_reshard_rows_total", "Rows copied or deleted by the migrator.")
RESHARD_SLOTS_LEFT = Gauge(
    "snapurl_reshard_slots_left",
    "Slots that are not yet on the shard that the ring assigns.",
    multiprocess_mode="livemax",
)
RESHARD_LAG_ROWS = Gauge(
    "snapurl_reshard_lag_rows",
    "Rows that changed on the source since the current batches were copied, at the last poll.",
    multiprocess_mode="livemax",
)
RESHARD_SLOTS_IN_STATE = Gauge(
    "snapurl_reshard_slots_in_state",
    "Rows in the slots tables of all shards, by state; a slot in hand-off has a row on both shards.",
    ["state"],
    multiprocess_mode="livemax",
)
RESHARD_ORPHANS = Gauge(
    "snapurl_reshard_orphan_slots",
    "Slots that a shard has released and whose rows it still has.",
    multiprocess_mode="livemax",
)
RESHARD_WORKING = Gauge(
    "snapurl_reshard_working",
    "1 if this migrator is active, 0 if it is on standby.",
    multiprocess_mode="livemax",
)
RESHARD_PAUSED = Gauge(
    "snapurl_reshard_paused", "1 if an operator has paused resharding.", multiprocess_mode="livemax"
)
RESHARD_MOVE_SECONDS = Gauge(
    "snapurl_reshard_move_seconds",
    "Age of the oldest move in progress; 0 if there is none.",
    multiprocess_mode="livemax",
)
PAUSE_SECONDS = Histogram(
    "snapurl_reshard_pause_seconds",
    "Time for which writes to a batch of slots were refused.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0),
)

# http
HTTP_REQUESTS = Counter(
    "snapurl_http_requests_total",
    "Responses of the API and the pages, by route; `other`: the request matched no route.",
    ["route", "method", "status"],
)
HTTP_SECONDS = Histogram(
    "snapurl_http_request_seconds",
    "Time from the parsed head to the response, by route and class of status.",
    ["route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
REDIRECT_SECONDS = Histogram(
    "snapurl_redirect_seconds",
    "Time from the arrival of a redirect's head to its response, by path: `ahead` is the fast path.",
    ["path"],
    buckets=SECONDS,
)
REDIRECTS = Counter(
    "snapurl_redirects_total", "Responses to GET and HEAD of a code, by outcome.", ["outcome"]
)
REDIRECTS_FAST_PATH = Counter(
    "snapurl_redirects_ahead_total",
    "Redirects that the fast path answered.",
)
CREATES_FAST_PATH = Counter("snapurl_creates_ahead_total", "Creates that the fast path answered.")
PROBLEMS = Counter("snapurl_problems_total", "Problem responses, by the end of their type.", ["slug"])
KEY_LOOKUPS = Counter(
    "snapurl_key_lookups_total", "Look-ups of API keys, by source of the result.", ["source"]
)
INTENTS_PURGED = Counter("snapurl_intents_purged_total", "Idempotency-Keys deleted after 24 hours.")
LIMIT_REFUSALS = Counter("snapurl_limit_refusals_total", "Requests that a rate limit refused.", ["bucket"])
LIMIT_FALLBACKS = Counter(
    "snapurl_limit_fallbacks_total", "Requests counted per worker because Redis did not answer."
)

PASSWORD_SECONDS = Histogram(
    "snapurl_password_seconds",
    "Time of a password's hash, with the wait for its turn.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)

TITLE_FETCHES = Counter(
    "snapurl_title_fetches_total",
    "Titles of targets that were asked for, by outcome; `refused`: the target is not public.",
    ["outcome"],
)

CONNECTIONS = Gauge("snapurl_connections", "Open client connections.", multiprocess_mode="livesum")
CONNECTIONS_REFUSED = Counter(
    "snapurl_connections_refused_total",
    "Client connections refused because of too many from one address, or in all.",
    ["whose"],
)
PACED = Counter(
    "snapurl_paced_total",
    "Uncounted answers and parts of refused bodies that waited, since their client asks faster than its pace.",
)
FAIR_QUEUE_REFUSED = Counter(
    "snapurl_turns_refused_total", "Requests refused because they waited too long in the fair queue."
)
BODIES_REFUSED = Counter(
    "snapurl_bodies_refused_total", "Requests refused because the memory for request bodies was used up."
)

WATCHERS = Gauge(
    "snapurl_watchers",
    "Open streams of events, as of pages of links and the cluster.",
    multiprocess_mode="livesum",
)
WATCHERS_REFUSED = Counter(
    "snapurl_watchers_refused_total",
    "Streams of events refused because of too many from one address, or in all.",
    ["whose"],
)

# caches
CACHE_ANSWERS = Counter(
    "snapurl_cache_answers_total",
    "Look-ups of links by source: l1, l2 (Redis), shard; none: there is no such link; failed.",
    ["level"],
)
CACHE_INVALIDATIONS_PENDING = Gauge(
    "snapurl_cache_untold_changes",
    "Invalidations of links that wait to be sent to Redis.",
    multiprocess_mode="livesum",
)
CACHE_LEFT_OUT = Counter(
    "snapurl_l2_left_out_total",
    "Links not written to Redis (L2), by reason: large, or full (Redis uses more than links may fill).",
    ["reason"],
)
L1_BYTES = Gauge(
    "snapurl_l1_bytes", "Memory of the links in the L1 caches of all workers.", multiprocess_mode="livesum"
)
L1_LINKS = Gauge("snapurl_l1_links", "Links in the L1 caches of all workers.", multiprocess_mode="livesum")
REDIS_UP = Gauge(
    "snapurl_redis_up",
    "1 if every worker receives invalidations (checked every second), or Redis answers the click consumer.",
    ["process"],
    multiprocess_mode="livemin",
)
REDIS_SECONDS = Histogram(
    "snapurl_redis_seconds", "Time of a call to Redis, including failed calls.", ["call"], buckets=SECONDS
)
REDIS_FAILURES = Counter("snapurl_redis_failures_total", "Failed calls to Redis, by kind.", ["call"])

# clicks
CLICKS_SHIPPED = Counter("snapurl_clicks_shipped_total", "Clicks that Redis has confirmed.")
CLICKS_DROPPED = Counter(
    "snapurl_clicks_dropped_total", "Clicks dropped because a worker held too many codes."
)
CLICK_SOURCES_DROPPED = Counter(
    "snapurl_click_sources_dropped_total",
    "Values (a referrer, a country, …) left out of counted clicks at a bound or for a slow shard.",
)
CLICK_VALUES_CAPPED = Counter(
    "snapurl_click_values_capped_total",
    "Clicks of which a worker counts a value under `*`, since the link has too many of that kind.",
    ["kind"],
)
CLICKS_UNSAID = Counter(
    "snapurl_clicks_unsaid_total",
    "Clicks counted without what their requests said, since a worker had too many different ones at once.",
)
CLICKS_UNREAD = Counter(
    "snapurl_clicks_unread_total",
    "Different clicks whose user agent or place was not read, since too many of them were new at once.",
    ["what"],
)
CLICK_VISITORS_LEFT_OUT = Counter(
    "snapurl_click_visitors_left_out_total",
    "Visitors that are missing from the estimates, since a worker or Redis had no room for them.",
)
CLICK_VISITORS_BYTES = Gauge(
    "snapurl_click_visitors_bytes",
    "Memory of Redis that the visitors of all links take, about.",
    multiprocess_mode="livemax",
)
CLICK_VISITORS_BYTES_MAX = Gauge(
    "snapurl_click_visitors_bytes_max",
    "Memory of Redis that they may take: beyond it visitors are missing from the estimates.",
    multiprocess_mode="livemax",
)
CLICK_DELIVERIES_DIVIDED = Counter(
    "snapurl_click_deliveries_divided_total",
    "Deliveries of clicks that a shard did not carry out in time, so that less was sent.",
)
CLICKS_HELD = Gauge(
    "snapurl_clicks_held", "Clicks that workers hold until Redis confirms them.", multiprocess_mode="livesum"
)
CLICKS_APPLIED = Counter("snapurl_clicks_applied_total", "Clicks delivered to the shards.")
CLICK_BACKLOG_ROWS = Gauge(
    "snapurl_click_backlog_rows",
    "Rows read from the click stream and not yet written to a shard.",
    multiprocess_mode="livesum",
)
CLICK_STREAM_ENTRIES = Gauge(
    "snapurl_click_stream_entries", "Entries in the click stream.", multiprocess_mode="livemax"
)
CLICK_LAG_SECONDS = Gauge(
    "snapurl_click_lag_seconds",
    "Age of the oldest entry that is not yet counted.",
    multiprocess_mode="livemax",
)
CLICK_CONSUMER_WORKING = Gauge(
    "snapurl_click_consumer_working",
    "1 if this click consumer is active, 0 if it is on standby.",
    multiprocess_mode="livemax",
)
CLICK_DAYS_FOLDED = Counter(
    "snapurl_click_days_folded_total", "Days of links and of groups that were folded into months.", ["of"]
)
CLICK_DAYS_OVERDUE = Gauge(
    "snapurl_click_days_overdue",
    "Days since the oldest day of clicks was to be folded into its month and was not; 0 if there is none.",
    multiprocess_mode="livemax",
)
WEBHOOK_DELIVERIES = Counter(
    "snapurl_webhook_deliveries_total",
    "Attempts to deliver a message of a webhook: `sent`, `failed` (tried again), `dead` (given up).",
    ["outcome"],
)
WEBHOOK_MESSAGES_WAITING = Gauge(
    "snapurl_webhook_messages_waiting",
    "Messages of webhooks that are not delivered and not given up; read every 10 s.",
    multiprocess_mode="livemax",
)
WEBHOOK_OVERDUE_SECONDS = Gauge(
    "snapurl_webhook_overdue_seconds",
    "For how long a message of an enabled webhook has been due, at most; read every 10 s.",
    multiprocess_mode="livemax",
)
CLICK_ENTRIES_MALFORMED = Counter(
    "snapurl_click_entries_malformed_total", "Entries of the click stream that could not be parsed."
)


# Prometheus sees no increase in a counter that first appears at 1, so these series are exported from the start.
SHARD_ERROR_KINDS = ("connect", "down", "late", "lost", "refused", "rights", "wrong")
_KNOWN: tuple[tuple[Counter, tuple[str, ...]], ...] = (
    (FENCE_REFUSALS, ("moved", "busy")),
    (WRITES_REFUSED, ("hand-off", "no-connection", "shard", "outcome-unknown")),
    (RESHARD_MOVES, ("finished", "given up")),
    (LIMIT_REFUSALS, ("create", "api", "missing", "scan", "unauthorized", "password")),
    (TITLE_FETCHES, ("found", "none", "failed", "refused", "too many")),
    (CONNECTIONS_REFUSED, ("address", "all")),
    (WATCHERS_REFUSED, ("address", "all")),
    (CLICKS_UNREAD, ("user_agent", "place")),
    (CLICK_VALUES_CAPPED, tuple(SourceKind)),
    (CLICK_DAYS_FOLDED, ("links", "groups")),
    (WEBHOOK_DELIVERIES, ("sent", "failed", "dead")),
    (KEY_LOOKUPS, ("remembered", "shard", "shared", "stale")),
    (
        REDIS_FAILURES,
        (
            "get",
            "put",
            "changed",
            "clear",
            "decode",
            "feed",
            "limit",
            "salt",
            "ship",
            "consume",
            "visitors",
            "patience",
        ),
    ),
    (BLOCKLIST_LOADS, ("failed", "loaded")),
    (TARGETS_REFUSED, ("command", "host")),
    (URL_CHECK_FAILURES, ("answer", "busy", "down", "timeout")),
)
for _counter, _values in _KNOWN:
    for _value in _values:
        _counter.labels(_value)
del _counter, _values, _value  # each would be a second name of a metric


class Timing:
    """Collects the observations of one series of a histogram until `flush` adds them in one step."""

    __slots__ = ("_bounds", "_counts", "_seconds", "_series", "is_filled")

    def __init__(self, series: Any) -> None:
        self._series = series
        self._bounds: tuple[float, ...] = tuple(series._upper_bounds)
        self._counts = [0] * len(self._bounds)
        self._seconds = 0.0
        self.is_filled = False  # since the last flush; few series of an idle process are

    def observe(self, seconds: float) -> None:
        self.is_filled = True
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def observe_many(self, count: int, seconds: float) -> None:
        """Observes `count` durations of `seconds` each."""
        self.is_filled = True
        self._counts[bisect_left(self._bounds, seconds)] += count
        self._seconds += count * seconds

    def observe_quick(self, count: int, seconds: float) -> None:
        """Observes `count` durations below the first bound that took `seconds` in total."""
        self.is_filled = True
        self._counts[0] += count
        self._seconds += seconds

    def flush(self) -> None:
        """Adds the observations since the last flush to the histogram."""
        self.is_filled = False
        for bucket, count in enumerate(self._counts):
            if count:
                self._series._buckets[bucket].inc(count)
                self._counts[bucket] = 0
        if self._seconds:
            self._series._sum.inc(self._seconds)
            self._seconds = 0.0


_TIMINGS: list[Timing] = []  # per process, like the registry of the library


@cache
def timing(histogram: Histogram, *labels: str) -> Timing:
    """Returns the `Timing` of a series, which exists once per process."""
    made = Timing(histogram.labels(*labels) if labels else histogram)
    _TIMINGS.append(made)
    return made


@contextmanager
def timed(series: Timing) -> Iterator[None]:
    """Observes the duration of the block, also if it raises."""
    began = monotonic()
    try:
        yield
    finally:
        series.observe(monotonic() - began)


def flush_timings() -> None:
    """Flushes every `Timing` of this process."""
    for each in _TIMINGS:
        if each.is_filled:
            each.flush()
