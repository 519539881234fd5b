"""A client's pace: how fast it is answered what no limit counts.

Theory. The rate limits bound what a client may have. What they refuse, and what needs no key, such as a health
check, would be answered as often as it is asked. So a client with a few connections could keep a worker busy with
refusals alone, and everybody's redirects would wait for the CPU. Therefore each such answer has a cost, and so has
each byte of a body that is only thrown away. A client may spend BURST_S at once. From then on it spends
ANSWERS_PER_S, and what exceeds that waits, up to WAIT_S_MAX. Meanwhile nothing more is read from the connection, so
the wait takes no CPU time and no more memory. A connection has one request at a time, so no more answers wait than
there are connections.

What is served does not wait: redirects, requests with a key within its limit, and creates within theirs, also where
they come from the same address.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from sanic import Request

from snapurl.addresses import site_of
from snapurl.limits import SITE_FACTOR

ANSWERS_PER_S = 200.0
DISCARDED_BYTES = 32_768  # of a refused body that cost as much as one answer
BURST_S = 0.25
WAIT_S_MAX = 2.0
CLIENTS_MAX = 10_000  # whose pace is known; beyond it the one that has not asked for longest begins anew


def is_paced(request: Request[Any, Any], status: int) -> bool:
    """Whether an answer with this status is given at its client's pace.

    `request.ctx.is_counted` says whether a limit has counted the request. Where it is not set, refusals are paced.
    """
    is_counted: bool | None = vars(request.ctx).get("is_counted")
    return 400 <= status < 500 if is_counted is None else not is_counted


class AnswerPace:
    """The pace of all clients of one worker. `clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._due_s: OrderedDict[str, float] = OrderedDict()  # when all that a client has spent is due

    def spend(self, client: str, answers: float) -> float:
        """Counts a cost of that many answers. Returns how many seconds the client has to wait for it."""
        site = site_of(client)
        wait_s = self._spend(client, answers / ANSWERS_PER_S)
        if site is None:
            return wait_s
        return max(wait_s, self._spend(site, answers / ANSWERS_PER_S / SITE_FACTOR))

    def _spend(self, name: str, cost_s: float) -> float:
        now = self._clock_s()
        due_s = max(self._due_s.get(name, 0.0), now - BURST_S) + cost_s
        self._due_s[name] = due_s = min(due_s, now + WAIT_S_MAX)
        self._due_s.move_to_end(name)
        if len(self._due_s) > CLIENTS_MAX:
            self._due_s.popitem(last=False)
        return max(0.0, due_s - now)
