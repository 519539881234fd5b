"""What every shard must say of its clicks: totals are sums, and nothing tells more than there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from snapurl.model import SourceKind
from snapurl.store.click_sums import BOT_HOUR, HOUR

_WRONG = """
SELECT slot, code, d.clicks AS by_day, t.clicks AS total, d.bots AS bots_by_day, t.bots AS bots
  FROM (SELECT slot, code, sum(clicks) AS clicks, sum(bots) AS bots
          FROM (SELECT slot, code, clicks, bots FROM click_days
                 UNION ALL SELECT slot, code, clicks, bots FROM click_months) a GROUP BY slot, code) d
  FULL JOIN click_totals t USING (slot, code)
 WHERE (d.clicks, d.bots) IS DISTINCT FROM (t.clicks, t.bots)
"""
_KINDS = [HOUR, BOT_HOUR, *SourceKind]
_TOLD_TOO_MUCH = """
SELECT min(d.{key}) AS of, min(d.clicks) AS clicks, t.kind, sum(t.clicks) AS told
  FROM {table} d, clicks_values_v1(d.sources, {unmerged}, $1) t
 GROUP BY d.ctid, t.kind
HAVING sum(t.clicks) > min(d.clicks) OR count(*) FILTER (WHERE t.clicks <= 0) > 0
"""
_BY_DOMAIN = """
SELECT false AS is_group, coalesce(substring(d.code FROM '^(.*)/'), '') AS domain, d.day, d.is_month,
       sum(d.clicks) AS clicks, sum(d.bots) AS bots
  FROM (SELECT slot, code, day, false AS is_month, clicks, bots FROM click_days
         UNION ALL SELECT slot, code, month, true, clicks, bots FROM click_months) d
  JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok' GROUP BY 1, 2, 3, 4
UNION ALL
SELECT true, g.key, g.day, g.is_month, sum(g.clicks), sum(g.bots)
  FROM (SELECT slot, scope, key, day, false AS is_month, clicks, bots FROM click_groups
         UNION ALL SELECT slot, scope, key, month, true, clicks, bots FROM click_group_months) g
  JOIN slots s ON s.slot = g.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE g.scope = 'domain' GROUP BY 1, 2, 3, 4
"""


async def assert_totals_are_sums(shard: Any) -> None:
    """Asserts it for all rows of a shard, also those of slots that it does not own."""
    wrong = await shard.fetch(_WRONG)
    assert not wrong, [dict(row) for row in wrong[:10]]
    for table, key, unmerged in (
        ("click_days", "code", "d.unmerged"),
        ("click_groups", "key", "d.unmerged"),
        ("click_months", "code", "NULL"),
        ("click_group_months", "key", "NULL"),
    ):
        wrong = await shard.fetch(_TOLD_TOO_MUCH.format(table=table, key=key, unmerged=unmerged), _KINDS)
        assert not wrong, [dict(row) for row in wrong[:10]]


async def assert_groups_are_sums(shards: Iterable[Any]) -> None:
    """Asserts, over the slots that the shards serve, that the clicks of a domain are those of its links, by day.

    By month where days of a month have been folded. No slot may be moving.
    """
    links: Counter[Any] = Counter()
    groups: Counter[Any] = Counter()
    rows = [row for shard in shards for row in await shard.fetch(_BY_DOMAIN)]
    folded = {row["day"] for row in rows if row["is_month"]}
    for row in rows:
        found = groups if row["is_group"] else links
        month = row["day"].replace(day=1)
        key = row["domain"], month if month in folded else row["day"]
        found[*key, "clicks"] += int(row["clicks"])
        found[*key, "bots"] += int(row["bots"])
    assert groups == links
