-- name: days_of_link
-- $3 and $4 bound the days, null: not. $5 whether `hours` is wanted: {"hour 19": 2, "bot_hour 19": 1}. One row with a null
-- day when there are no clicks, so that the outcome is always told.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       d.day, d.clicks, d.bots, d.visitors, CASE WHEN $5 THEN (
           SELECT jsonb_object_agg(t.name, t.clicks)
             FROM (SELECT t.kind || ' ' || t.value AS name, sum(t.clicks) AS clicks
                     FROM clicks_values_v1(d.sources, d.unmerged, '{hour,bot_hour}') t GROUP BY 1) t) END::text AS hours
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN click_days d ON d.slot = q.slot AND d.code = $2
   AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
 ORDER BY d.day

-- name: values_of_link
-- Of the kinds $5, at most $6 values each, most clicks first. `total` are the clicks of all values of the kind. One row with
-- a null kind when there are none.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       v.kind, v.value, v.clicks, v.total
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN (
      SELECT t.kind, t.value, sum(t.clicks)::bigint AS clicks, (sum(sum(t.clicks)) OVER (PARTITION BY t.kind))::bigint AS total,
             row_number() OVER (PARTITION BY t.kind ORDER BY sum(t.clicks) DESC, t.value) AS place
        FROM click_days d, clicks_values_v1(d.sources, d.unmerged, $5) t
       WHERE d.slot = $1 AND d.code = $2
         AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
       GROUP BY t.kind, t.value) v ON v.place <= $6
 ORDER BY v.kind, v.place

-- name: days_of_group
-- As `days_of_link`, of what this shard has counted for the key $2 of a scope; null: for all its keys.
SELECT d.day, d.clicks, d.bots, CASE WHEN $5 THEN (
           SELECT jsonb_object_agg(t.name, t.clicks)
             FROM (SELECT t.kind || ' ' || t.value AS name, sum(t.clicks) AS clicks
                     FROM clicks_values_v1(d.sources, d.unmerged, '{hour,bot_hour}') t GROUP BY 1) t) END::text AS hours
  FROM click_groups d JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND d.scope = $1 AND ($2::text IS NULL OR d.key = $2)
   AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')

-- name: values_of_group
-- As `values_of_link`, of what this shard has counted.
SELECT kind, value, clicks
  FROM (SELECT t.kind, t.value, sum(t.clicks)::bigint AS clicks,
               row_number() OVER (PARTITION BY t.kind ORDER BY sum(t.clicks) DESC, t.value) AS place
          FROM click_groups d JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok',
               clicks_values_v1(d.sources, d.unmerged, $5) t
         WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
           AND d.scope = $1 AND ($2::text IS NULL OR d.key = $2)
           AND d.day BETWEEN coalesce($3::date, '-infinity') AND coalesce($4::date, 'infinity')
         GROUP BY t.kind, t.value) v
 WHERE place <= $6

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
