-- name: identity
SELECT cluster_id::text, shard, state FROM cluster

-- name: topology
SELECT document FROM topology ORDER BY version DESC LIMIT 1

-- name: attested
SELECT attested_start IS NOT DISTINCT FROM pg_postmaster_start_time() AS attested FROM cluster

-- name: slots_since
-- The counter and the slots changed after version $1 by what they are, in one snapshot; the version of the newest
-- topology, the start time of the server, and whether that start is attested.
SELECT o.version AS ownership, (SELECT max(version) FROM topology) AS topology,
       pg_postmaster_start_time() AS started,
       EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time()) AS attested,
       s.slots, s.state, s.epoch, s.peer
  FROM ownership o
  LEFT JOIN (SELECT array_agg(slot) AS slots, state, epoch, peer
               FROM slots WHERE version > $1 GROUP BY state, epoch, peer) s ON true

-- name: served_slots
-- Empty on a server that is not attested. What the transaction reads next is planned for its arguments: the plan for a
-- common tag is not the one for a rare tag.
SELECT coalesce(array_agg(slot), '{}'), set_config('plan_cache_mode', 'force_custom_plan', true) FROM slots
 WHERE read_outcome_v1(state) = 'ok' AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())

-- name: start
SELECT pg_postmaster_start_time() AS started, shard_timeline_v1() AS timeline, attested_timeline,
       attested_start IS NOT DISTINCT FROM pg_postmaster_start_time() AS attested
  FROM cluster

-- name: slots
SELECT slot, state, epoch, peer FROM slots

-- name: topologies
SELECT document FROM topology

-- name: peer_logs
SELECT shard, timeline FROM peer_logs

-- name: peer_seen
SELECT shard_peer_seen_v1($1, $2) AS newest

-- name: attest
SELECT shard_attest_v1($1) AS attested

-- name: put_identity
INSERT INTO cluster (cluster_id, shard, state) VALUES ($1, $2, $3)

-- name: set_ready
UPDATE cluster SET state = 'ready'

-- name: put_topology
INSERT INTO topology (version, document) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING

-- name: put_slots
INSERT INTO slots (slot, state, epoch) SELECT slot, 'owned', 1 FROM unnest($1::smallint[]) AS u (slot)

-- name: move
-- The state of a slot in hand-off, with the move's token and the other shard; no row if there is none under way.
SELECT state, peer, move_token FROM slots WHERE slot = $1 AND move_token IS NOT NULL

-- name: migrator
SELECT status, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS age_s FROM migrator

-- name: changes
-- The newest entries of the audit log.
SELECT id, at, who, what, outcome FROM audit ORDER BY at DESC LIMIT $1

-- name: sharded_columns
-- Every table with a slot, except `slots` itself: its columns without xid, and its key, in their order. From pg_class and
-- not information_schema, which hides what this user may not read: a move would leave such a table behind.
SELECT t.relname::text AS name,
       array_agg(c.attname::text ORDER BY c.attnum) FILTER (WHERE c.attname <> 'xid') AS columns,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = t.oid AND i.indisprimary) AS key
  FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
 WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r' AND t.relname <> 'slots'
 GROUP BY t.oid, t.relname
HAVING bool_or(c.attname = 'slot')
 ORDER BY t.relname
