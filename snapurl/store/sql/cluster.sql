-- name: identity
SELECT cluster_id::text, shard, state FROM cluster

-- name: topology
SELECT document FROM topology ORDER BY version DESC LIMIT 1

-- name: ownership_version
SELECT version FROM ownership

-- name: slots_since
-- The counter and the rows changed after version $1, in one snapshot.
SELECT o.version AS ownership, s.slot, s.state, s.epoch, s.peer
  FROM ownership o LEFT JOIN slots s ON s.version > $1

-- name: served_slots
SELECT coalesce(array_agg(slot), '{}') FROM slots WHERE read_outcome_v1(state) = 'ok'

-- name: put_identity
INSERT INTO cluster (cluster_id, shard, state) VALUES ($1, $2, $3)

-- name: set_ready
UPDATE cluster SET state = 'ready'

-- name: put_topology
INSERT INTO topology (version, document) VALUES ($1, $2) ON CONFLICT (version) DO NOTHING

-- name: put_slots
INSERT INTO slots (slot, state, epoch) SELECT slot, 'owned', 1 FROM unnest($1::smallint[]) AS u (slot)

-- name: migrator
SELECT status, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS age_s FROM migrator
