"""The fair queue: a client with few requests does not wait behind all requests of another."""

from __future__ import annotations

import asyncio

import pytest

from snapurl.errors import Unavailable
from snapurl.http.wire.fair_queue import FairQueue

MANY = 50


async def test_lines_of_clients_take_turns() -> None:
    """One request that arrives after fifty of another client is handled second."""
    fair_queue = FairQueue(client_permits_max=1, permits_max=1, wait_s=10)
    served: list[str] = []

    async def ask(client: str) -> None:
        async with fair_queue.permit(client):
            await asyncio.sleep(0)
            served.append(client)

    await asyncio.gather(*(ask("greedy") for _ in range(MANY)), ask("modest"))
    assert len(served) == MANY + 1
    assert served.index("modest") <= 2


async def test_a_client_has_so_many_places_and_no_more() -> None:
    """While one client has all its permits, others still get theirs."""
    fair_queue = FairQueue(client_permits_max=2, permits_max=3, wait_s=0.05)
    async with fair_queue.permit("greedy"), fair_queue.permit("greedy"):
        with pytest.raises(Unavailable) as refused:
            async with fair_queue.permit("greedy"):
                raise AssertionError
        assert refused.value.retry_after_s == 1.0
        async with fair_queue.permit("modest"):
            with pytest.raises(Unavailable):
                async with fair_queue.permit("third"):
                    raise AssertionError
    async with fair_queue.permit("greedy"), fair_queue.permit("greedy"), fair_queue.permit("third"):
        pass


async def test_those_who_give_up_leave_nothing_behind() -> None:
    """A request that is cancelled while it waits, or as it gets a permit, leaves no permit acquired."""
    fair_queue = FairQueue(client_permits_max=1, permits_max=1, wait_s=10)
    for _ in range(3):
        async with fair_queue.permit("first"):
            waiting = [asyncio.create_task(_one(fair_queue, client)) for client in ("a", "a", "b")]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        waiting[1].cancel()  # it gets its permit at this moment
        await asyncio.gather(*waiting, return_exceptions=True)
    assert not fair_queue._waiters and not fair_queue._permits and fair_queue._permits_total == 0


async def _one(fair_queue: FairQueue, client: str) -> None:
    async with fair_queue.permit(client):
        await asyncio.sleep(0)
