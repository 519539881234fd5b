-- name: days_of_link
-- $3 and $4 bound the days, null: not. $5 whether `hours` is wanted: [[{"19": 2}, {"19": 1}]], of all clicks and of
-- those of bots, in parts to be added up. Also the months that days have become, if they have some of these days, as their
-- first day. One row with a null day when there are no clicks, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.*
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN LATERAL (
      SELECT c.day, false AS is_month, c.clicks, c.bots, c.visitors, CASE WHEN $5 THEN (
                 SELECT jsonb_agg(jsonb_build_array(t.told -> 'hour', t.told -> 'bot_hour'))
                   FROM (SELECT c.sources AS told
                         UNION ALL
                         SELECT e.value FROM jsonb_array_elements(('[' || c.unmerged || ']')::jsonb) e) t) END::text AS hours
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

-- name: imported_days_of_link
-- What another service had counted by UTC day. One row with a null day when there is nothing.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, d.*
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN LATERAL (
      SELECT i.day, i.clicks, i.bots FROM imported_days i
       WHERE i.slot = $1 AND i.code = $2
         AND i.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')) d ON true
 ORDER BY d.day

-- name: values_of_link
-- Of the kinds $5, at most $6 values each, most clicks first. `total` are the clicks of all values of the kind. Months that
-- days have become count if all of their days are asked for. One row with a null kind when there are none.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       v.kind, v.value, v.clicks, v.total
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN (
      SELECT k.kind, t.*
        FROM unnest($5::text[]) AS k (kind), LATERAL (
             SELECT v.key COLLATE "C" AS value, sum(v.value::bigint)::bigint AS clicks,
                    (sum(sum(v.value::bigint)) OVER ())::bigint AS total,
                    row_number() OVER (ORDER BY sum(v.value::bigint) DESC, v.key COLLATE "C") AS place
               FROM (WITH days AS NOT MATERIALIZED (
                         SELECT d.sources, d.unmerged FROM click_days d
                          WHERE d.slot = $1 AND d.code = $2
                            AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity'))
                     SELECT sources AS told FROM days
                     UNION ALL
                     SELECT e.value FROM days, jsonb_array_elements(('[' || unmerged || ']')::jsonb) e
                     UNION ALL
                     SELECT m.sources FROM click_months m
                      WHERE m.slot = $1 AND m.code = $2 AND m.month >= coalesce($3::date, '-infinity')
                        AND m.month + interval '1 month' <= coalesce($4::date, 'infinity') + interval '1 day') t,
                    jsonb_each_text(t.told -> k.kind) v
              GROUP BY v.key COLLATE "C") t) v ON v.place <= $6
 ORDER BY v.kind, v.place

-- name: days_of_group
-- As `days_of_link`, of what this shard has counted for the key $2 of a scope; null: for all its keys.
SELECT d.day, false AS is_month, d.clicks, d.bots, CASE WHEN $5 THEN (
           SELECT jsonb_agg(jsonb_build_array(t.told -> 'hour', t.told -> 'bot_hour'))
             FROM (SELECT d.sources AS told
                   UNION ALL SELECT e.value FROM jsonb_array_elements(('[' || d.unmerged || ']')::jsonb) e) t) END::text AS hours
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
SELECT k.kind, t.value, t.clicks
  FROM unnest($5::text[]) AS k (kind), LATERAL (
       SELECT v.key COLLATE "C" AS value, sum(v.value::bigint)::bigint AS clicks,
              row_number() OVER (ORDER BY sum(v.value::bigint) DESC, v.key COLLATE "C") AS place
         FROM (WITH days AS NOT MATERIALIZED (
                   SELECT d.sources, d.unmerged
                     FROM click_groups d JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
                    WHERE d.scope = $1 AND ($2::text IS NULL OR d.key = $2)
                      AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity'))
               SELECT sources AS told FROM days
               UNION ALL
               SELECT e.value FROM days, jsonb_array_elements(('[' || unmerged || ']')::jsonb) e
               UNION ALL
               SELECT m.sources
                 FROM click_group_months m JOIN slots s ON s.slot = m.slot AND read_outcome_v1(s.state) = 'ok'
                WHERE m.scope = $1 AND ($2::text IS NULL OR m.key = $2) AND m.month >= coalesce($3::date, '-infinity')
                  AND m.month + interval '1 month' <= coalesce($4::date, 'infinity') + interval '1 day') t,
              jsonb_each_text(t.told -> k.kind) v
        GROUP BY v.key COLLATE "C") t
 WHERE t.place <= $6 AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())

-- name: totals_of_links
-- Of the links of this shard that have clicks: $1 are slots, $2 the codes.
SELECT t.code, t.clicks, t.bots
  FROM unnest($1::smallint[], $2::text[]) a (slot, code)
  JOIN slots s ON s.slot = a.slot AND read_outcome_v1(s.state) = 'ok'
  JOIN click_totals t ON t.slot = a.slot AND t.code = a.code
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())

-- name: totals_of_groups
-- What this shard has counted for each of the keys $2 of a scope; null: for all its keys.
SELECT d.key, sum(d.clicks)::bigint AS clicks, sum(d.bots)::bigint AS bots
  FROM (SELECT slot, key, clicks, bots FROM click_groups WHERE scope = $1 AND ($2::text[] IS NULL OR key = ANY ($2))
        UNION ALL
        SELECT slot, key, clicks, bots FROM click_group_months
         WHERE scope = $1 AND ($2::text[] IS NULL OR key = ANY ($2))) d
  JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
 GROUP BY d.key

-- name: keys_of_scope
-- Of the keys of a scope that begin with $2, at most $5 with the most clicks of this shard in these days. In the order of
-- collation "C" they are all before $2 with a character that is after all others.
SELECT d.key, sum(d.clicks)::bigint AS clicks, sum(d.bots)::bigint AS bots
  FROM click_groups d JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND d.scope = $1 AND d.key >= $2 AND d.key < $2 || U&'\+10FFFF' AND d.day BETWEEN $3 AND $4
 GROUP BY d.key
 ORDER BY sum(d.clicks) DESC, d.key
 LIMIT $5

-- name: share
SELECT outcome, peer, epoch, secret, made_at, made_by FROM link_share_v1($1, $2, $3, $4, $5)

-- name: share_of_link
-- One row with nulls when there is none, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       p.secret, p.made_at, p.made_by
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN link_shares p ON p.slot = q.slot AND p.code = $2 AND p.secret IS NOT NULL
