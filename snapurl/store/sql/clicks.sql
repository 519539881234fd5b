-- name: apply
SELECT slot, outcome, peer, epoch, last_entry
  FROM clicks_apply_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)

-- name: totals
-- One row with a null day when the code has no clicks, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.day, d.clicks
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN click_days d ON d.slot = q.slot AND d.code = $2
 ORDER BY d.day

-- name: sources
-- Over all days, the most clicks first; one row with a null kind when there are none. Clicks that are in no row of a
-- kind came from requests that did not say, and are under ''; what was written under that once is among them.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome,
       s.peer, s.epoch, d.kind, d.value, d.clicks
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN (
      SELECT kind, value, clicks, row_number() OVER (PARTITION BY kind ORDER BY clicks DESC, value) AS place
        FROM (SELECT kind, value, sum(clicks)::bigint AS clicks
                FROM click_sources WHERE slot = $1 AND code = $2 AND value <> '' GROUP BY kind, value
              UNION ALL
              SELECT k.kind, '', (a.clicks - coalesce((
                         SELECT sum(clicks) FROM click_sources
                          WHERE slot = $1 AND code = $2 AND kind = k.kind AND value <> ''), 0))::bigint
                FROM (VALUES ('browser'), ('referrer')) k (kind),
                     (SELECT sum(clicks) AS clicks FROM click_days WHERE slot = $1 AND code = $2) a) c
       WHERE clicks > 0) d ON d.place <= $3
 ORDER BY d.kind, d.place
