"""The attacks of the drill in small: what the attacker is answered, and that others are served meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from snapurl.config import Settings
from tests.hostile import bodies, headers, keys, probes, shut_out
from tests.hostile.attacker import attack
from tests.hostile.beside import DEFAULT_LIMITS, Modest
from tests.integration.http.service import Service, running
from tests.support.waits import until

ATTACKS = {  # with the number of answers that show all of it
    "bodies": (bodies.ATTACK, 40),
    "headers": (headers.ATTACK, 130),
    "probes": (probes.ATTACK, 400),
    "keys": (keys.ATTACK, 400),
    "shut-out": (shut_out.ATTACK, 1_000),
}
REDIRECTS, CREATES = 100, 5
CONNECTIONS = 8


@pytest.fixture(scope="module")
async def limited(
    shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """Yields a service of two workers with the default limits."""
    directory = tmp_path_factory.mktemp("workers")
    async with running(
        shared_settings, directory, workers=2, **DEFAULT_LIMITS, SNAPURL_PROXIES="127.0.0.0/8"
    ) as started:
        yield started


@pytest.mark.parametrize("name", ATTACKS)
async def test_others_are_served_during_an_attack(limited: Service, name: str) -> None:
    """The attacker gets documented answers, and each redirect and create of another address succeeds meanwhile."""
    kind, answers = ATTACKS[name]
    ports = [worker.port for worker in limited.workers]
    codes = [(await limited.shorten())["code"] for _ in range(2)]
    modest = Modest(ports, codes, shut_out.VISITOR)
    seen = Counter[int]()

    def is_enough() -> bool:
        noticed = modest.noticed
        return (
            seen.total() >= answers
            and len(noticed.redirects_s) >= REDIRECTS
            and len(noticed.creates_s) >= CREATES
        )

    address = f"127.0.0.{20 + list(ATTACKS).index(name)}"
    small = replace(kind, connections=CONNECTIONS)
    noticed, _ = await modest.during(attack(small, ports, codes, address, seen, until(is_enough)))
    await modest.close()
    assert not noticed.failed
    assert seen.keys() <= kind.statuses
