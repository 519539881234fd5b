-- name: apply
SELECT slot, outcome, peer, epoch, last_entry
  FROM clicks_apply_v4($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)

-- name: owners
-- Of the links that have an account: their places in the arrays, from 1.
SELECT place, owner, tags FROM clicks_owners_v1($1, $2)

-- name: totals
-- One row with a null day when the code has no clicks, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.day, d.clicks
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN click_days d ON d.slot = q.slot AND d.code = $2
 ORDER BY d.day

-- name: sources
-- Over all days, of the kinds $4, the most clicks first; one row with a null kind when there are none. Clicks that are in
-- no value of a kind came from requests that did not say, and are under ''.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome,
       s.peer, s.epoch, d.kind, d.value, d.clicks
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN (
      WITH told AS MATERIALIZED (
          SELECT t.kind, t.value, sum(t.clicks)::bigint AS clicks
            FROM click_days d, clicks_values_v1(d.sources, d.unmerged, $4) t
           WHERE d.slot = $1 AND d.code = $2 GROUP BY t.kind, t.value
      )
      SELECT kind, value, clicks, row_number() OVER (PARTITION BY kind ORDER BY clicks DESC, value) AS place
        FROM (SELECT * FROM told
              UNION ALL
              SELECT k.kind, '', (a.clicks - coalesce((SELECT sum(clicks) FROM told t WHERE t.kind = k.kind), 0))::bigint
                FROM unnest($4::text[]) k (kind),
                     (SELECT sum(clicks) AS clicks FROM click_days WHERE slot = $1 AND code = $2) a) c
       WHERE clicks > 0) d ON d.place <= $3
 ORDER BY d.kind, d.place
