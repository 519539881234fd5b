"""What every shard must say of its clicks: the total of each link is the sum of its days."""

from __future__ import annotations

from typing import Any

_WRONG = """
SELECT slot, code, d.clicks AS by_day, t.clicks AS total
  FROM (SELECT slot, code, sum(clicks) AS clicks FROM click_days GROUP BY slot, code) d
  FULL JOIN click_totals t USING (slot, code)
 WHERE d.clicks IS DISTINCT FROM t.clicks
"""


async def assert_totals_are_sums(shard: Any) -> None:
    """Asserts it for all rows of a shard, also those of slots that it does not own."""
    wrong = await shard.fetch(_WRONG)
    assert not wrong, [dict(row) for row in wrong[:10]]
