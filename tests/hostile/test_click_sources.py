"""Made-up referrers and user agents stop nobody's clicks from being counted."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.hostile.click_sources import CLICKS, CONNECTIONS, OWNED, PIPELINED, SHARD, attack, codes_in
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.test_clicks import clicks_of, consuming
from tests.support.waits import until

REQUESTS_MIN = 20_000
ATTACKED = 2


async def test_made_up_sources_do_not_stop_the_counting_of_a_shard(make_service: ServiceMaker) -> None:
    """While some links get tens of thousands of clicks with sources of their own, another link of their shard is
    counted; at the end every click is, and the sources stored are few."""
    async with make_service(workers=2) as service, consuming(service):
        dsn = next(item.dsn for item in service.settings.shard_dsns if item.name == SHARD)
        shard = await asyncpg.connect(dsn)
        other, *attacked = codes_in(await shard.fetchval(OWNED), 1 + ATTACKED)
        for code in (other, *attacked):
            await service.shorten(alias=code)
        batches, is_other_counted = 0, asyncio.Event()

        async def goes_on() -> bool:
            nonlocal batches
            batches += 1
            return batches * PIPELINED < REQUESTS_MIN + CONNECTIONS or not is_other_counted.is_set()

        attacking = asyncio.create_task(
            attack([worker.port for worker in service.workers], attacked, goes_on)
        )
        for number in range(1, 4):
            assert (await service.api.get(f"/{other}")).status_code == 302

            async def is_counted(clicks: int = number) -> bool:
                return await clicks_of(service, other) == clicks

            await until(is_counted)
        assert not attacking.done()
        is_other_counted.set()
        sent = await attacking

        async def all_counted() -> bool:
            return bool(await shard.fetchval(CLICKS, attacked) >= sent)

        await until(all_counted)
        assert await shard.fetchval(CLICKS, attacked) == sent
        stored = await shard.fetch(
            "SELECT t.kind, count(DISTINCT (d.code, t.value)) AS rows, sum(t.clicks) AS clicks FROM click_days d, "
            "clicks_values_v1(clicks_merge_v1(d.sources, coalesce(d.unmerged, '')), NULL, '{browser,referrer}') t "
            "WHERE d.code = ANY($1) GROUP BY t.kind ORDER BY t.kind",
            attacked,
        )
        await shard.close()
    found = {row["kind"]: (row["rows"], row["clicks"]) for row in stored}
    for kind, rows in (("browser", 2 * ATTACKED), ("referrer", 101 * ATTACKED)):  # with `*`
        assert found[kind][0] <= rows
        assert found[kind][1] <= sent
