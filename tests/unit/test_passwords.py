"""Passwords of links: what is right, and what waits for its turn."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator

import pytest

from snapurl.errors import Unavailable
from snapurl.passwords import NICENESS, WAITING_MAX, Passwords


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


async def test_only_the_password_itself_is_right(passwords: Passwords) -> None:
    """A hash tells its password from any other, and never equals another hash of it; what is no hash fits
    nothing."""
    first, second = await passwords.hash("open sesame"), await passwords.hash("open sesame")
    assert first != second and "sesame" not in first
    for password_hash, password, right in (
        (first, "open sesame", True),
        (second, "open sesame", True),
        (first, "Open sesame", False),
        ("$argon2id$v=19$", "open sesame", False),
        ("", "", False),
    ):
        assert await passwords.is_right(password, password_hash) is right


async def test_hashes_wait_for_one_thread_that_gives_way(passwords: Passwords) -> None:
    """One hash is computed at a time, at a low priority; a bounded number wait, and the next one is refused."""
    go = threading.Event()

    def niceness() -> int:
        go.wait()
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    waiting = [asyncio.ensure_future(passwords._run(niceness)) for _ in range(1 + WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.hash("open sesame")
    go.set()
    assert set(await asyncio.gather(*waiting)) == {NICENESS}
    await passwords.hash("open sesame")
