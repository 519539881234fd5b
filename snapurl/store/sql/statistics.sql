-- name: days_of_link
-- $3 and $4 bound the days, null: not. $5 whether `hours` is wanted: {"hour 19": 2, "bot_hour 19": 1}. Also the months that
-- days have become, if they have some of these days, as their first day. One row with a null day when there are no clicks,
-- so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.*
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN LATERAL (
      SELECT c.day, false AS is_month, c.clicks, c.bots, c.visitors, CASE WHEN $5 THEN (
                 SELECT jsonb_object_agg(t.name, t.clicks)
                   FROM (SELECT t.kind || ' ' || t.value AS name, sum(t.clicks) AS clicks
                           FROM clicks_values_v1(c.sources, c.unmerged, '{hour,bot_hour}') t GROUP BY 1) t) END::text AS hours
        FROM click_days c
       WHERE c.slot = $1 AND c.code = $2
         AND c.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
      UNION ALL
      SELECT m.month, true, m.clicks, m.bots, m.daily_visitors, NULL
        FROM click_months m
       WHERE m.slot = $1 AND m.code = $2
         AND m.month > coalesce($3::date, '-infinity') - interval '1 month' AND m.month <= coalesce($4::date, 'infinity')
  ) d ON true
 ORDER BY d.day, d.is_month DESC

-- name: values_of_link
-- Of the kinds $5, at most $6 values each, most clicks first. `total` are the clicks of all values of the kind. Months that
-- days have become count if all of their days are asked for. One row with a null kind when there are none.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       v.kind, v.value, v.clicks, v.total
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN (
      SELECT t.kind, t.value, sum(t.clicks)::bigint AS clicks, (sum(sum(t.clicks)) OVER (PARTITION BY t.kind))::bigint AS total,
             row_number() OVER (PARTITION BY t.kind ORDER BY sum(t.clicks) DESC, t.value) AS place
        FROM (SELECT d.sources, d.unmerged
                FROM click_days d
               WHERE d.slot = $1 AND d.code = $2
                 AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
              UNION ALL
              SELECT m.sources, NULL
                FROM click_months m
               WHERE m.slot = $1 AND m.code = $2 AND m.month >= coalesce($3::date, '-infinity')
                 AND m.month + interval '1 month' <= coalesce($4::date, 'infinity') + interval '1 day') d,
             clicks_values_v1(d.sources, d.unmerged, $5) t
       GROUP BY t.kind, t.value) v ON v.place <= $6
 ORDER BY v.kind, v.place

-- name: days_of_group
-- As `days_of_link`, of what this shard has counted for the key $2 of a scope; null: for all its keys.
SELECT d.day, false AS is_month, d.clicks, d.bots, CASE WHEN $5 THEN (
           SELECT jsonb_object_agg(t.name, t.clicks)
             FROM (SELECT t.kind || ' ' || t.value AS name, sum(t.clicks) AS clicks
                     FROM clicks_values_v1(d.sources, d.unmerged, '{hour,bot_hour}') t GROUP BY 1) t) END::text AS hours
  FROM click_groups d JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND d.scope = $1 AND ($2::text IS NULL OR d.key = $2)
   AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
UNION ALL
SELECT m.month, true, m.clicks, m.bots, NULL
  FROM click_group_months m JOIN slots s ON s.slot = m.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND m.scope = $1 AND ($2::text IS NULL OR m.key = $2)
   AND m.month > coalesce($3::date, '-infinity') - interval '1 month' AND m.month <= coalesce($4::date, 'infinity')

-- name: values_of_group
-- As `values_of_link`, of what this shard has counted.
SELECT kind, value, clicks
  FROM (SELECT t.kind, t.value, sum(t.clicks)::bigint AS clicks,
               row_number() OVER (PARTITION BY t.kind ORDER BY sum(t.clicks) DESC, t.value) AS place
          FROM (SELECT g.slot, g.sources, g.unmerged
                  FROM click_groups g
                 WHERE g.scope = $1 AND ($2::text IS NULL OR g.key = $2)
                   AND g.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
                UNION ALL
                SELECT m.slot, m.sources, NULL
                  FROM click_group_months m
                 WHERE m.scope = $1 AND ($2::text IS NULL OR m.key = $2) AND m.month >= coalesce($3::date, '-infinity')
                   AND m.month + interval '1 month' <= coalesce($4::date, 'infinity') + interval '1 day') d
          JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok',
               clicks_values_v1(d.sources, d.unmerged, $5) t
         WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
         GROUP BY t.kind, t.value) v
 WHERE place <= $6
