"""The composition root: makes all parts of the HTTP service, starts them in order and stops them in reverse order.

Starting begins with the shards, so stopping ends with them: the last clicks are shipped while Redis and the shards
are still connected. There are no module globals: one process can hold several apps.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any, cast

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.config import Config
from sanic.http.constants import HTTP
from sanic.server import HttpProtocol

from snapurl.accounts import AccountService
from snapurl.addresses import Clients
from snapurl.cache.reader import LinkCache
from snapurl.clicks.agent_libraries import load
from snapurl.clicks.agents import read_families
from snapurl.clicks.classifier import Classifier
from snapurl.clicks.lag import LagReader
from snapurl.clicks.origins import Origins
from snapurl.clicks.places import Places
from snapurl.clicks.shipper import Shipper
from snapurl.clicks.tally import SAID_MAX, Tally
from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.http.api.links import create_link
from snapurl.http.auth import Authenticator
from snapurl.http.bodies import BodyThreads
from snapurl.http.context import Services, Site
from snapurl.http.dispatch import SanicHandler, dispatch
from snapurl.http.docs.site import make_site
from snapurl.http.event_streams import EventStreams
from snapurl.http.fastpath.protocol import FastPath, FastProtocol
from snapurl.http.fastpath.several_domains import FastPathOfDomains
from snapurl.http.preflight import preflight
from snapurl.http.problems import Refusals
from snapurl.http.redirect import METHODS, follow
from snapurl.http.router import LinkRouter
from snapurl.http.routes import REDIRECT_PATH, ROUTES
from snapurl.http.wire.connections import BodyBudget, BoundedProtocol, ConnectionBudget, raise_open_files
from snapurl.http.wire.dates import DateClock
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.http.wire.heads import Head
from snapurl.http.wire.loop_share import CREATES_PER_ITERATION, REQUESTS_PER_ITERATION, LoopShare
from snapurl.http.wire.pace import AnswerPace
from snapurl.keys import KeyService
from snapurl.limits import Blocklist, Limiter
from snapurl.link_batches import LinkBatches
from snapurl.link_imports import LinkImports
from snapurl.links import LinkService
from snapurl.model import Readiness
from snapurl.passwords import Passwords
from snapurl.redis_client import redis_client
from snapurl.renames import LinkRenames
from snapurl.statistics import Statistics
from snapurl.store.accounts import AccountStore
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.keys import KeyStore
from snapurl.store.links import LinkStore
from snapurl.store.statistics import StatisticsStore
from snapurl.targets.blocked_hosts import BlockedHosts
from snapurl.targets.policy import TargetPolicy
from snapurl.targets.url_command import UrlCommand
from snapurl.tasks import CachedCall, cancel_and_wait
from snapurl.telemetry.logs import endless_task
from snapurl.telemetry.metrics import INTENTS_PURGED, WORKERS
from snapurl.telemetry.process import ProcessMetrics
from snapurl.titles import TitleFetcher
from snapurl.ui.cluster_live import ClusterLive
from snapurl.ui.link_live import LinkLive
from snapurl.ui.mount import mount_dashboard
from snapurl.ui.screens.cluster import render_event
from snapurl.urls import UrlPolicy

HEAD_BYTES_MAX = 16_384  # request line and headers together; Sanic's own maximum
DISCARDED_BYTES_MAX = 67_108_864  # of a refused body, read so that the client gets the response
REQUEST_S_MAX = 15.0  # for a head to arrive; Sanic notices up to half as much later
RESPONSE_S_MAX = 30.0  # for body and response, plus the time that the body takes at BODY_BYTES_PER_S_MIN
KEEP_ALIVE_S = 75.0
PURGE_INTERVAL_S = 600.0  # per worker, plus or minus half
PURGE_ROWS = 1_000  # per shard and statement
PROBE_AGE_S_MAX = 1.0  # of a readiness or a reshard's progress that several requests share
PROBES = "probes"  # the client of the fair queue in whose name they are asked for


class Context:
    """`app.ctx`: the protocol and budgets of connections; services and fast path are set when the server starts.

    `is_leaving` is whether the service is about to stop, so that its health checks fail.
    """

    is_leaving = False

    protocol: type[HttpProtocol]
    services: Services
    fast_path: FastPath
    clients: Clients
    origins: Origins
    connection_budget: ConnectionBudget
    body_budget: BodyBudget
    body_threads: BodyThreads
    fair_queue: FairQueue
    event_streams: EventStreams
    cluster_live: ClusterLive
    link_live: LinkLive
    loop_share: LoopShare
    create_share: LoopShare
    pace: AnswerPace
    date: DateClock


log = logging.getLogger("snapurl.app")

App = Sanic[Config, Context]


def create_app(settings: Settings) -> App:
    """Makes the Sanic app, whose server connects to everything when it starts. Starting it raises ConfigError."""
    shlink = import_module("snapurl.http.shlink.mount") if settings.shlink_api else None
    app: App = Sanic(
        f"snapurl-{uuid.uuid4().hex}",
        config=_sanic_config(settings),
        ctx=Context(),
        request_class=Head,
        router=LinkRouter() if shlink is None else shlink.ShlinkRouter(),
        error_handler=Refusals(),
        configure_logging=False,
    )
    # Without this Sanic sends an empty Alt-Svc header, since it does not know that there is only HTTP/1.1.
    app.state.server_info.append(ApplicationServerInfo({"version": HTTP.VERSION_1}))
    app.ctx.protocol = FastProtocol if settings.fast_path else BoundedProtocol
    app.ctx.clients = Clients(settings.proxy_networks, log.warning)
    app.ctx.origins = Origins(app.ctx.clients, settings.geo_header)
    app.ctx.connection_budget = ConnectionBudget.of(raise_open_files())
    app.ctx.body_budget = BodyBudget(settings.body_bytes_max)
    app.ctx.body_threads = BodyThreads()
    app.ctx.fair_queue = FairQueue()
    app.ctx.event_streams = EventStreams()
    app.ctx.loop_share = LoopShare(REQUESTS_PER_ITERATION)
    app.ctx.create_share = LoopShare(CREATES_PER_ITERATION)
    app.ctx.pace = AnswerPace()
    app.ctx.date = DateClock()
    create = _add_routes(app)
    if shlink is not None:
        shlink.mount_shlink(app)
    if settings.yourls_api:
        import_module("snapurl.http.yourls.mount").mount_yourls(app)
    dashboard = mount_dashboard(app, settings)
    if settings.cors_allowed:
        _add_preflights(app)
    site = make_site(ROUTES, settings)
    stack = AsyncExitStack()

    async def connect(app: Any) -> None:
        try:
            context = cast(App, app).ctx
            context.services = await open_services(settings, site, context.fair_queue, context.origins, stack)
            if dashboard is not None:
                context.cluster_live = ClusterLive(
                    context.services, partial(render_event, dashboard.templates)
                )
                stack.push_async_callback(context.cluster_live.close)
                context.link_live = LinkLive(context.services.links.get)
            context.fast_path = _fast_path(context, create)
            stack.callback(context.fast_path.flush)
        except BaseException:
            await stack.aclose()
            raise

    async def disconnect(app: Any) -> None:
        await stack.aclose()

    app.before_server_start(connect)
    app.after_server_stop(disconnect)
    return app


async def open_services(
    settings: Settings, site: Site, fair_queue: FairQueue, origins: Origins, stack: AsyncExitStack
) -> Services:
    """Connects to everything and pushes on `stack` how to close it again. Raises ConfigError."""
    shards = await Shards.connect(settings)
    stack.push_async_callback(shards.close)
    router = Router(shards, settings.busy_wait_ms)
    store = LinkStore(shards, router)
    stack.push_async_callback(store.close)

    passwords = Passwords()
    stack.callback(passwords.close)
    limiter = Limiter(settings)
    stack.push_async_callback(limiter.close)
    if fault := await limiter.redis_fault():
        log.warning("starting degraded: Redis %s", fault)
    redis = redis_client(settings)
    stack.push_async_callback(redis.aclose)
    namespace = shards.topology.cluster_id
    cache = LinkCache(settings, namespace, store.find, redis, time.monotonic)
    await cache.start()
    stack.push_async_callback(cache.stop)
    places = None if settings.geo_file is None else Places(settings.geo_file, time.monotonic)
    read_agent = load() if settings.click_sources_max else None
    classifier = Classifier(read_agent or read_families, origins.read, places)
    tally = Tally(settings.click_codes_max, SAID_MAX if settings.click_sources_max else 0)
    shipper = Shipper(settings, namespace, tally, classifier, redis, _now)
    await shipper.start()
    stack.push_async_callback(shipper.stop)
    measurements = (partial(WORKERS.set, 1), partial(shards.measure, "worker"), cache.measure)
    stack.push_async_callback(
        cancel_and_wait, endless_task(ProcessMetrics(measurements).run, "process metrics")
    )
    keys = KeyStore(shards, router)
    auth = Authenticator(keys, time.monotonic, _now)
    stack.push_async_callback(auth.close)
    purge = endless_task(partial(_purge_intents, store), "purge of Idempotency-Keys")
    stack.push_async_callback(cancel_and_wait, purge)

    targets = _target_policy(settings, stack)
    lag = LagReader(namespace, redis)

    async def redis_fault() -> str | None:
        subscription_fault = None if cache.is_subscribed else "does not tell of changes"
        return await limiter.redis_fault() or subscription_fault

    async def check_readiness() -> Readiness:
        async with fair_queue.turn(PROBES):
            health, redis, late = await asyncio.gather(shards.health(), redis_fault(), lag.fault())
        faults = {"redis": redis, "clicks": late, **targets.faults}
        return Readiness(shards.topology.cluster_id, tuple(health), faults)

    readiness = CachedCall(check_readiness, PROBE_AGE_S_MAX)
    stack.push_async_callback(readiness.close)
    reshard = CachedCall(shards.migrator_document, PROBE_AGE_S_MAX)
    stack.push_async_callback(reshard.close)

    urls = UrlPolicy(settings.url_chars_max, settings.own_origins)
    titles = TitleFetcher(urls) if settings.fetch_titles else None
    links = LinkService(store, cache, passwords, titles, _now, targets=targets)
    return Services(
        settings=settings,
        site=site,
        links=links,
        statistics=Statistics(links, StatisticsStore(shards, router)),
        batches=LinkBatches(links),
        imports=LinkImports(store, cache, targets=targets),
        renames=LinkRenames(store, cache, targets=targets),
        targets=targets,
        keys=KeyService(keys, _now),
        accounts=AccountService(AccountStore(shards, router), keys, _now),
        cache=cache,
        tally=tally,
        limiter=limiter,
        blocked=Blocklist(),
        key_guessers=Blocklist(),
        password_guessers=Blocklist(),
        auth=auth,
        urls=urls,
        domains=settings.link_domains,
        clock=_now,
        clock_ms=_now_ms,
        ring_view=shards.ring_view,
        arcs=shards.arcs,
        place_of=shards.place_of,
        reshard=reshard,
        shard_states=shards.states,
        changes=shards.changes,
        click_lag=lag.read_or_none,
        clicks_held=lambda: shipper.held,
        readiness=readiness,
    )


def _target_policy(settings: Settings, stack: AsyncExitStack) -> TargetPolicy:
    """Begins to read the blocked hosts; the program that is asked of URLs is started when it is needed."""
    hosts, command = None, None
    if settings.blocked_hosts_file is not None:
        hosts = BlockedHosts(settings.blocked_hosts_file, time.monotonic, _now)
        stack.push_async_callback(cancel_and_wait, endless_task(hosts.run, "blocked hosts"))
    if settings.url_check_argv:
        timeout_s = settings.url_check_timeout_ms / 1000
        command = UrlCommand(settings.url_check_argv, timeout_s, settings.url_check_failure, time.monotonic)
        stack.push_async_callback(command.close)
    return TargetPolicy(hosts, command)


def _fast_path(context: Context, create: SanicHandler) -> FastPath:
    services = context.services
    make: Callable[..., FastPath] = FastPath
    if services.domains.others:
        make = partial(FastPathOfDomains, services.domains, services.urls.own)
    return make(
        services.cache,
        context.fair_queue,
        services.tally,
        services.blocked,
        context.clients,
        context.origins,
        services.clock_ms,
        create,
        asyncio.get_running_loop(),
        context.date,
        head_bytes_max=HEAD_BYTES_MAX,
    )


async def _purge_intents(store: LinkStore) -> None:
    """Deletes expired Idempotency-Keys until it is cancelled; each worker at random times."""
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5) * PURGE_INTERVAL_S)
        try:
            while purged := await store.purge_idempotency_records(PURGE_ROWS):
                INTENTS_PURGED.inc(purged)
        except SnapURLError as error:
            log.warning("expired Idempotency-Keys stay until the next purge: %s", error.detail)


def _now() -> datetime:
    return datetime.now(UTC)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _sanic_config(settings: Settings) -> Config:
    return Config(
        {
            "ACCESS_LOG": False,
            "AUTO_EXTEND": False,
            "GRACEFUL_TCP_CLOSE_TIMEOUT": 1.0,
            "KEEP_ALIVE_TIMEOUT": KEEP_ALIVE_S,
            "MOTD": False,
            "REQUEST_MAX_HEADER_SIZE": HEAD_BYTES_MAX,
            "REQUEST_MAX_SIZE": max(DISCARDED_BYTES_MAX, settings.body_bytes_max),
            "REQUEST_TIMEOUT": REQUEST_S_MAX,
            "RESPONSE_TIMEOUT": RESPONSE_S_MAX,
            "TOUCHUP": not _is_touched_up(),
        },
        env_prefix=None,
    )


def _is_touched_up() -> bool:
    """Whether Sanic has compiled unused signals out of its classes: it can do so once per process, not per app."""
    return bool(getattr(HttpProtocol, "__touched__", False))


def _add_routes(app: App) -> SanicHandler:
    """Adds all routes. Returns the handler of creates, which the fast path calls, too.

    With `ignore_body` the handlers read the bodies: Sanic would read them before the client is authorized.
    """
    handlers = {route.name: dispatch(route) for route in ROUTES}
    for route in ROUTES:
        path = _sanic_path(route.path)
        app.add_route(
            handlers[route.name], path, route.methods, name=route.name, ignore_body=True, unquote=True
        )
    path = _sanic_path(REDIRECT_PATH)
    app.add_route(follow, path, METHODS, name="follow", ignore_body=True, unquote=True)
    return handlers[create_link.__name__]


def _sanic_path(path: str) -> str:
    return re.sub(r"\{(\w+)\}", r"<\1:str>", path)


def _add_preflights(app: App) -> None:
    """Adds OPTIONS to every path of the API."""
    for number, path in enumerate({route.path for route in ROUTES if not route.is_page}):
        sanic_path = _sanic_path(path)
        app.add_route(preflight, sanic_path, ["OPTIONS"], name=f"preflight_{number}", ignore_body=True)
