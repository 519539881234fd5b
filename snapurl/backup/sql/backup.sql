-- name: session
-- Rows as text must be the same everywhere, whatever a server's settings are; and a snapshot may wait for the others.
SET TIME ZONE 'UTC'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0

-- name: identity
SELECT cluster_id::text, shard, state FROM cluster

-- name: head
SELECT (SELECT document FROM topology ORDER BY version DESC LIMIT 1) AS document,
       EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time()) AS attested,
       (SELECT max(version) FROM schema_migrations) AS schema

-- name: slots
SELECT slot, state, epoch, peer FROM slots

-- name: tables
SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'

-- name: estimate
-- Rows as PostgreSQL estimates them, which it does not for a table that it has never analyzed.
SELECT coalesce(sum(greatest(reltuples, 0)), 0)::float8 AS rows FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relname = ANY ($1::text[])

-- name: mark
SELECT what, outcome FROM audit WHERE id = $1

-- name: mark_locked
SELECT outcome FROM audit WHERE id = $1 FOR UPDATE

-- name: put_mark
INSERT INTO audit (id, at, who, what, outcome) VALUES ($1, now(), $2, $3, $4)

-- name: set_mark
UPDATE audit SET outcome = $2 WHERE id = $1

-- name: fenced
SELECT slot FROM slots_fence_v1($1::smallint[]) WHERE outcome <> 'ok'

-- name: relaxed
SELECT set_config('synchronous_commit', 'off', true)
