"""Turns: who asks for little is not behind all those who ask for much."""

from __future__ import annotations

import asyncio

import pytest

from snapurl.errors import Unavailable
from snapurl.http.wire.fair_queue import Turns

MANY = 50


async def test_lines_of_clients_take_turns() -> None:
    """One request that comes after fifty of another client is served second."""
    turns = Turns(client_max=1, in_work_max=1, wait_s=10)
    served: list[str] = []

    async def ask(client: str) -> None:
        async with turns.of(client):
            await asyncio.sleep(0)
            served.append(client)

    await asyncio.gather(*(ask("greedy") for _ in range(MANY)), ask("modest"))
    assert len(served) == MANY + 1
    assert served.index("modest") <= 2


async def test_a_client_has_so_many_places_and_no_more() -> None:
    """While one client's places are taken, others still find some."""
    turns = Turns(client_max=2, in_work_max=3, wait_s=0.05)
    async with turns.of("greedy"), turns.of("greedy"):
        with pytest.raises(Unavailable) as refused:
            async with turns.of("greedy"):
                raise AssertionError
        assert refused.value.retry_after_s == 1.0
        async with turns.of("modest"):
            with pytest.raises(Unavailable):
                async with turns.of("third"):
                    raise AssertionError
    async with turns.of("greedy"), turns.of("greedy"), turns.of("third"):
        pass


async def test_those_who_give_up_leave_nothing_behind() -> None:
    """Requests that are cancelled while they wait, or when they are called, keep nobody's place."""
    turns = Turns(client_max=1, in_work_max=1, wait_s=10)
    for _ in range(3):
        async with turns.of("first"):
            waiting = [asyncio.create_task(_one(turns, client)) for client in ("a", "a", "b")]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()  # it is being called in this moment
        await asyncio.gather(*waiting, return_exceptions=True)
    assert not turns._lines and not turns._in_work and turns._total == 0


async def _one(turns: Turns, client: str) -> None:
    async with turns.of(client):
        await asyncio.sleep(0)
