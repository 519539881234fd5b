"""A shard that goes and comes: what lists, keys and the log say of it."""

from __future__ import annotations

import pytest

from ring.slots import slot_of
from snapurl.accounts import create_account, list_accounts
from snapurl.errors import Unavailable
from snapurl.keys import create_key, list_keys, revoke_key
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.shards import Shards
from tests.integration.http.conftest import ServiceMaker
from tests.support.waits import until

LOST = "db2"
LINKS = 40
KEYS = 12


async def test_a_lost_shard_takes_only_its_own_from_lists(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """Without a shard, lists of links, keys and accounts have all others and say that some are missing, and keys
    and accounts can be created; when it is back, lists are whole and go on from their cursors. The log has one line
    for each."""
    async with make_service() as service:
        shards = await Shards.connect(service.settings)
        while shards.map.owner(slot_of(service.admin_key.split("_")[1])) == LOST:
            service.admin_key = await service.key("admin")
        service.api.headers["X-Api-Key"] = service.admin_key
        codes = [(await service.shorten())["code"] for _ in range(LINKS)][::-1]
        lost = {code for code in codes if shards.map.owner(slot_of(code)) == LOST}
        team = await create_account(service.settings, "team")
        while shards.map.owner(slot_of(team.account_id)) == LOST:
            team = await create_account(service.settings, f"team {team.account_id}")
        teams = {account.account_id for account in (await list_accounts(service.settings))[0]}
        lost_teams = {account for account in teams if shards.map.owner(slot_of(account)) == LOST}
        await shards.close()
        assert 0 < len(lost) < LINKS

        async def page(**query: str) -> tuple[list[str], str | None, bool]:
            answer = await service.api.get("/api/v1/links", params=query)
            assert answer.status_code == 200, answer.text
            body = answer.json()
            return [link["code"] for link in body["links"]], body["next_cursor"], body["complete"]

        assert await page(limit="200") == (codes, None, True)
        known = {key.key_id for key in (await list_keys(service.settings))[0]}
        await cluster.shard(LOST).kill()
        try:
            rest = [code for code in codes if code not in lost]
            assert await page(limit="200") == (rest, None, False)
            first, cursor, complete = await page(limit="5")
            assert (first, complete) == (rest[:5], False)
            assert cursor is not None
            assert await page(limit="200", cursor=cursor) == (rest[5:], None, False)
            told = (await service.api.get("/api/v1/links", params={"total": "true"})).json()
            assert (told["partial"], told["total"]) == ([LOST], None)
            refused = await service.api.get("/api/v1/links", params={"strict": "true"})
            assert refused.status_code == 503
            assert LOST not in refused.text

            made = [
                await create_key(service.settings, "test", ["read"], account=team.name) for _ in range(KEYS)
            ]
            listed, silent = await list_keys(service.settings)
            assert silent == (LOST,)
            made_ids = {key.split("_")[1] for key in made}
            assert made_ids < {key.key_id for key in listed} <= known | made_ids
            over_http = (await service.api.get("/api/v1/keys", params={"account": team.account_id})).json()
            assert {key["id"] for key in over_http["keys"]} == made_ids and over_http["partial"] == [LOST]
            new_team = await create_account(service.settings, "made without a shard")
            accounts, silent = await list_accounts(service.settings)
            assert {item.account_id for item in accounts} == teams - lost_teams | {new_team.account_id}
            assert silent == (LOST,)
            with pytest.raises(Unavailable, match=f"except perhaps on {LOST}"):
                await revoke_key(service.settings, "nobody's key")
            with pytest.raises(Unavailable, match="except perhaps on"):
                await create_key(service.settings, "test", ["read"], account="nobody's account")
        finally:
            await cluster.shard(LOST).start()

        async def is_whole() -> bool:
            return (await page(limit="200"))[2]

        await until(is_whole)
        assert await page(limit="200") == (codes, None, True)
        assert await page(limit="200", cursor=cursor) == (codes[codes.index(first[-1]) + 1 :], None, True)
        log = service.workers[0].log.read_text()
        assert log.count(f"shard {LOST} refuses connections") == 1
        assert log.count(f"shard {LOST} answers again") == 1


async def test_a_create_without_an_alias_needs_no_certain_shard(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """From the moment that a shard is killed, each link that is to get any code gets one of another shard."""
    async with make_service() as service:
        await service.shorten()
        await cluster.shard(LOST).kill()
        try:
            made = [await service.shorten() for _ in range(LINKS)]
            assert len({link["code"] for link in made}) == LINKS
        finally:
            await cluster.shard(LOST).start()
