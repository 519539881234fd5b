-- name: identity
SELECT cluster_id::text, shard, state FROM cluster

-- name: topology
SELECT document FROM topology ORDER BY version DESC LIMIT 1

-- name: vouched
SELECT vouched_start IS NOT DISTINCT FROM pg_postmaster_start_time() AS vouched FROM cluster

-- name: slots_since
-- The counter and the rows changed after version $1, in one snapshot; which start of the server it is, and whether
-- somebody has vouched for that.
SELECT o.version AS ownership, pg_postmaster_start_time() AS started,
       EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time()) AS vouched,
       s.slot, s.state, s.epoch, s.peer
  FROM ownership o LEFT JOIN slots s ON s.version > $1

-- name: served_slots
-- None on a server that nobody has vouched for.
SELECT coalesce(array_agg(slot), '{}') FROM slots
 WHERE read_outcome_v1(state) = 'ok' AND EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time())

-- name: start
SELECT pg_postmaster_start_time() AS started, shard_timeline_v1() AS timeline, vouched_timeline,
       vouched_start IS NOT DISTINCT FROM pg_postmaster_start_time() AS vouched
  FROM cluster

-- name: slots
SELECT slot, state, epoch, peer FROM slots

-- name: topologies
SELECT document FROM topology

-- name: peer_logs
SELECT shard, timeline FROM peer_logs

-- name: peer_seen
SELECT shard_peer_seen_v1($1, $2) AS newest

-- name: vouch
SELECT shard_vouch_v1($1) AS vouched

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
