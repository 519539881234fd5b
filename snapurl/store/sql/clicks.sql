-- name: apply
SELECT slot, outcome, peer, epoch FROM clicks_apply_v1($1, $2, $3, $4, $5, $6)

-- name: totals
-- One row with a null day when the code has no clicks, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.day, d.clicks
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN click_days d ON d.slot = q.slot AND d.code = $2
 ORDER BY d.day
