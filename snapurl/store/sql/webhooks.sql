-- name: add
SELECT outcome, peer, epoch FROM webhook_add_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: find
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       w.webhook_id, w.version, w.account, w.url, w.kinds, w.note, w.secrets, w.rotated_at, w.created_at, w.created_by,
       w.disabled_at, w.disabled_why
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN webhooks w ON w.slot = q.slot AND w.webhook_id = $2 AND w.deleted_at IS NULL

-- name: change
SELECT r.outcome, r.peer, r.epoch, (r.webhook).webhook_id, (r.webhook).version, (r.webhook).account, (r.webhook).url,
       (r.webhook).kinds, (r.webhook).note, (r.webhook).secrets, (r.webhook).rotated_at, (r.webhook).created_at,
       (r.webhook).created_by, (r.webhook).disabled_at, (r.webhook).disabled_why
  FROM webhook_change_v1($1, $2, $3, $4, $5, $6, $7, $8) r

-- name: all
-- Those of account $1 if given.
SELECT w.webhook_id, w.version, w.account, w.url, w.kinds, w.note, w.secrets, w.rotated_at, w.created_at, w.created_by,
       w.disabled_at, w.disabled_why
  FROM webhooks w JOIN slots s ON s.slot = w.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND w.deleted_at IS NULL AND ($1::text IS NULL OR w.account = $1)
 ORDER BY w.created_at DESC, w.webhook_id DESC

-- name: watches
-- The version is 0 where the watch is to be renewed.
SELECT webhook_id, CASE WHEN renewed_at > now() - interval '1 hour' THEN version ELSE 0 END AS version FROM webhook_watches

-- name: watch
SELECT webhook_watch_v1($1, $2, $3, $4, $5, $6)

-- name: test
SELECT outcome, peer, epoch FROM webhook_test_v1($1, $2, $3, $4)

-- name: page
-- $2 rows of webhook $1 at most, before the keyset ($3, $4) if given, newest first; those in state $5 if given.
SELECT m.slot, m.message_id, m.webhook_id, m.code, m.kind, m.at, '{}' AS data, m.state, m.attempts, m.due_at, m.tried_at,
       m.status, m.answer
  FROM webhook_messages m JOIN slots s ON s.slot = m.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND m.webhook_id = $1 AND ($5::text IS NULL OR m.state = $5)
   AND ($3::timestamptz IS NULL OR (m.at, m.message_id) < ($3, $4::text COLLATE "C"))
 ORDER BY m.at DESC, m.message_id DESC
 LIMIT $2

-- name: place
-- In which slot message $2 of webhook $1 is.
SELECT m.slot FROM webhook_messages m JOIN slots s ON s.slot = m.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND m.webhook_id = $1 AND m.message_id = $2 COLLATE "C"

-- name: replay
SELECT outcome, peer, epoch FROM webhook_replay_v1($1, $2, $3)

-- name: replay_dead
SELECT webhook_replay_dead_v1($1, $2) AS replayed

-- name: gone
SELECT w.webhook_id FROM webhooks w JOIN slots s ON s.slot = w.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time()) AND w.deleted_at IS NOT NULL

-- name: purge
SELECT webhook_purge_v1($1, $2, $3, $4, $5) AS purged

-- name: notify_expired
SELECT looked_at, more_since, more_code FROM webhook_notify_expired_v1($1, $2, $3)

-- name: waiting
-- Of each webhook: how many messages wait, 1,000,000 at most over all, and for how many seconds the first has been due.
SELECT m.webhook_id, count(*) AS waiting,
       coalesce(extract(epoch FROM clock_timestamp() - min(m.due_at) FILTER (WHERE m.holder = '')), 0)::float8 AS overdue_s
  FROM (SELECT w.webhook_id, w.due_at, w.holder FROM webhook_messages w
          JOIN slots s ON s.slot = w.slot AND read_outcome_v1(s.state) = 'ok'
         WHERE w.state = 'waiting' LIMIT 1000000) m
 GROUP BY m.webhook_id

-- name: claim
SELECT slot, message_id, webhook_id, code, kind, at, data, state, attempts, due_at, tried_at, status, answer
  FROM webhook_claim_v1($1, $2, $3, $4)

-- name: release
SELECT webhook_release_v1($1, $2) AS released

-- name: settle
SELECT outcome, peer, epoch FROM webhook_settle_v1($1, $2, $3, $4, $5, $6, $7)
