-- name: all_states
SELECT slot, state, epoch, peer, move_token FROM slots

-- name: sharded_columns
-- Every table with a slot, except `slots` itself: its columns without xid, and its key, in their order.
SELECT c.table_name::text AS name,
       array_agg(c.column_name::text ORDER BY c.ordinal_position) FILTER (WHERE c.column_name <> 'xid') AS columns,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = format('public.%I', c.table_name)::regclass AND i.indisprimary) AS key
  FROM information_schema.columns c
 WHERE c.table_schema = 'public' AND c.table_name <> 'slots'
 GROUP BY c.table_name
HAVING bool_or(c.column_name = 'slot')
 ORDER BY c.table_name

-- name: lease
SELECT migrator_lease_v1($1, $2, $3) AS held

-- name: migrator
SELECT holder, status, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS age_s FROM migrator

-- name: standby_lag
SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8 AS lag_s FROM pg_stat_replication

-- name: audit
INSERT INTO audit (id, at, who, what, outcome) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome

-- name: history
SELECT id, at, who, what, outcome FROM audit ORDER BY at DESC LIMIT $1

-- name: topologies
SELECT document FROM topology ORDER BY version DESC LIMIT 100

-- name: size
-- Rows are counted while they are few, and estimated by PostgreSQL beyond a million.
SELECT CASE WHEN c.reltuples > 1e6 THEN c.reltuples::bigint ELSE (SELECT count(*) FROM links) END AS rows,
       pg_database_size(current_database()) AS bytes
  FROM pg_class c WHERE c.oid = 'public.links'::regclass

-- name: server
SELECT current_setting('server_version_num')::integer AS version,
       has_schema_privilege(current_user, 'public', 'CREATE') AS may_create,
       (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()) AS prepared

-- name: applied
SELECT version, checksum FROM schema_migrations ORDER BY version

-- name: stuck
SELECT pid, usename::text AS who, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS age_s
  FROM pg_stat_activity
 WHERE datname = current_database() AND state = 'idle in transaction'
   AND xact_start < clock_timestamp() - interval '30 seconds'

-- name: surrender
-- A slot that another shard owns at a higher epoch: `$2` is that shard, `$3` its epoch.
UPDATE slots SET state = 'released', peer = $2, epoch = $3, move_token = NULL WHERE slot = $1 AND epoch < $3
