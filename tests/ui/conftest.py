"""One service and one Chromium for all tests of the dashboard.

Tests with the admin key share browser profiles, so that each logs in and loads the scripts once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from tests.integration.http.service import Service, running
from tests.support.databases import Databases
from tests.support.requirements import program, skip_without
from tests.support.waits import HANG_S, PATIENT

PUBLIC_URL = "http://s.example.org"
SECRET = "a secret of the tests, longer than it must be"

expect.set_options(timeout=HANG_S * 1000)

PageMaker = Callable[..., Awaitable[Page]]


@pytest.fixture(scope="session")
async def ui_settings(
    cluster: LocalCluster, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Settings]:
    """Returns settings for databases that live as long as the test session."""
    database = f"ui_{os.getpid()}_{uuid.uuid4().hex[:8]}"
    await databases.clone_initialised(database)
    shards = " ".join(f"{name}={cluster.shard(name).dsn(database)}" for name in cluster.dsns)
    yield load_settings(
        shards=shards, redis_url=cluster.redis.url(0), home=tmp_path_factory.mktemp("home"), **PATIENT
    )
    for server in cluster.servers():
        if server.pid is None:
            await server.start()
    await databases.drop(database)


@pytest.fixture(scope="session")
async def service(ui_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Yields a service of one worker whose short URLs are plain http, so that its cookies work on loopback."""
    variables = {
        "SNAPURL_BASE_URL": PUBLIC_URL,
        "SNAPURL_SESSION_SECRET": SECRET,
        "SNAPURL_FETCH_TITLES": "on",
    }
    async with running(ui_settings, tmp_path_factory.mktemp("workers"), 1, **variables) as started:
        yield started


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Yields a headless Chromium, the one of this machine."""
    chromium = program("chromium")
    if chromium is None:
        skip_without("chromium")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        await launched.close()


@pytest.fixture(scope="session")
async def profiles(browser: Browser) -> AsyncIterator[dict[tuple[object, ...], BrowserContext]]:
    """Yields the shared profiles, by what they differ in."""
    shared: dict[tuple[object, ...], BrowserContext] = {}
    yield shared
    for context in shared.values():
        await context.close()


@pytest.fixture
async def make_page(
    service: Service, browser: Browser, profiles: dict[tuple[object, ...], BrowserContext]
) -> AsyncIterator[PageMaker]:
    """Returns a factory of pages, logged in with `key`: the admin key, unless the test says other.

    The profile is shared if it has the admin key, and new if the test says `is_new`. At the end of the test no page
    may have broken its content security policy or written an error to its console.
    """
    contexts: list[BrowserContext] = []
    pages: list[Page] = []
    faults: list[str] = []

    async def make(
        *,
        key: str | None = "admin",
        width: int = 1280,
        theme: str = "light",
        javascript: bool = True,
        zone: str = "UTC",
        is_new: bool = False,
        base_url: str | None = None,
    ) -> Page:
        address = base_url or service.workers[0].url
        name = (address, width, theme, javascript, zone)
        is_shared = key == "admin" and not is_new
        context = profiles.get(name) if is_shared else None
        if context is None:
            context = await make_profile(address, key, width, theme, javascript, zone)
            if is_shared:
                profiles[name] = context
            else:
                contexts.append(context)
        page = await context.new_page()
        pages.append(page)
        page.on("console", lambda message: faults.extend(_faults(message)))
        page.on("pageerror", lambda error: faults.append(str(error)))
        return page

    async def make_profile(
        address: str, key: str | None, width: int, theme: str, javascript: bool, zone: str
    ) -> BrowserContext:
        context = await browser.new_context(
            base_url=address,
            viewport={"width": width, "height": 800},
            color_scheme="dark" if theme == "dark" else "light",
            java_script_enabled=javascript,
            timezone_id=zone,
            locale="en-GB",
            permissions=["clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(HANG_S * 1000)
        if key is not None:
            await log_in(context, service, service.admin_key if key == "admin" else key)
        return context

    yield make
    for page in pages:
        await page.close()
    for context in contexts:
        await context.close()
    assert not faults


def _faults(message: ConsoleMessage) -> list[str]:
    """Returns the text of an error. That a page was answered with a status such as 422 is none."""
    if message.type not in ("error", "warning") or "the server responded with a status of" in message.text:
        return []
    return [message.text]


async def log_in(context: BrowserContext, service: Service, key: str) -> None:
    """Gives a profile the session of a key."""
    url = service.workers[0].url
    answer = await service.client(Origin=url).post("/ui/login", data={"key": key})
    assert (answer.status_code, answer.headers.get("content-type")) == (303, None), answer.text
    value = answer.cookies["snapurl_session"]
    await context.add_cookies(
        [{"name": "snapurl_session", "value": value, "domain": "127.0.0.1", "path": "/ui", "httpOnly": True}]
    )


@pytest.fixture
async def page(make_page: PageMaker) -> Page:
    """A wide page in light colours, logged in with the admin key."""
    return await make_page()
