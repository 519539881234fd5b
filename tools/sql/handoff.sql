-- name: all_states
SELECT slot, state, epoch, peer, move_token FROM slots

-- name: change_stamps
-- A restarted server may count again from an earlier version.
SELECT (SELECT version FROM ownership) AS ownership, (SELECT max(version) FROM topology) AS topology,
       pg_postmaster_start_time() AS started

-- name: lease
-- A renewal that a crash loses does no harm, so it does not wait for the disk or a standby. A new shard has no
-- topology until its publication is complete.
SELECT migrator_lease_v2($1, $2, $3) AS held, coalesce((SELECT max(version) FROM topology), 0) AS topology,
       set_config('synchronous_commit', 'off', true)

-- name: migrator
SELECT holder, status, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS age_s FROM migrator

-- name: standby_lag
SELECT lag_s, hidden FROM standby_lag_v1()

-- name: audit
INSERT INTO audit (id, at, who, what, outcome) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome

-- name: audit_close
UPDATE audit SET outcome = $2 WHERE outcome = $1

-- name: history
SELECT id, at, who, what, outcome FROM audit ORDER BY at DESC LIMIT $1

-- name: topologies
SELECT document FROM topology ORDER BY version DESC LIMIT 100

-- name: size
-- Rows are counted while they are few, and estimated by PostgreSQL beyond a million; bytes are of all sharded tables.
SELECT CASE WHEN c.reltuples > 1e6 THEN c.reltuples::bigint ELSE (SELECT count(*) FROM links) END AS rows,
       (SELECT sum(pg_total_relation_size(t.oid))::bigint
          FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attname = 'slot' AND NOT a.attisdropped
         WHERE t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace AND t.relname <> 'slots') AS bytes
  FROM pg_class c WHERE c.oid = 'public.links'::regclass

-- name: server
SELECT current_setting('server_version_num')::integer / 10000 AS major,
       current_setting('transaction_read_only')::boolean AS read_only,
       has_schema_privilege(current_user, 'public', 'CREATE') AS may_create,
       has_database_privilege(current_user, current_database(), 'TEMPORARY') AS may_temp,
       (SELECT coalesce(array_agg(t.relname::text), '{}') FROM pg_class t
         WHERE t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace) AS tables,
       (SELECT coalesce(array_agg(gid), '{}') FROM pg_prepared_xacts WHERE database = current_database()) AS prepared

-- name: applied
SELECT version, checksum FROM schema_migrations ORDER BY version

-- name: rights
SELECT migrator, owner, missing, remedy, other_migrators, may_end FROM migrator_rights_v1()

-- name: stuck
SELECT pid, who, age_s FROM idle_transactions_v1(30)

-- name: release_contested
-- Releases slots ($1) that another shard ($2) owns at higher epochs ($3).
UPDATE slots s SET state = 'released', peer = $2, epoch = u.epoch, move_token = NULL
  FROM unnest($1::smallint[], $3::bigint[]) AS u (slot, epoch) WHERE s.slot = u.slot AND s.epoch < u.epoch

-- name: release_lost
-- Releases slots ($1) that other shards ($2) own at higher epochs ($3), whatever their state.
UPDATE slots s SET state = 'released', peer = u.peer, epoch = u.epoch, move_token = NULL
  FROM unnest($1::smallint[], $2::text[], $3::bigint[]) AS u (slot, peer, epoch)
 WHERE s.slot = u.slot AND s.epoch < u.epoch

-- name: newest_version
SELECT max(version) AS version FROM topology
