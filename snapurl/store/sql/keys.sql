-- name: add
SELECT outcome, peer, epoch FROM key_add_v2($1, $2, $3, $4, $5, $6, $7, $8, $9)

-- name: find
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       k.key_id, k.name, k.secret_hash, k.rights, k.limit_rate, k.created_at, k.revoked_at,
       k.account, k.created_by, k.used_at
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN api_keys k ON k.slot = q.slot AND k.key_id = $2

-- name: revoke
SELECT r.outcome, r.peer, r.epoch, (r.api_key).key_id, (r.api_key).name, (r.api_key).secret_hash,
       (r.api_key).rights, (r.api_key).limit_rate, (r.api_key).created_at, (r.api_key).revoked_at,
       (r.api_key).account, (r.api_key).created_by, (r.api_key).used_at
  FROM key_revoke_v1($1, $2) r

-- name: use
SELECT outcome, peer, epoch FROM key_used_v1($1, $2)

-- name: page
-- $1 rows at most (null: all), before the keyset ($2, $3) if given, newest first; those of account $4 if given.
SELECT k.key_id, k.name, k.secret_hash, k.rights, k.limit_rate, k.created_at, k.revoked_at,
       k.account, k.created_by, k.used_at
  FROM api_keys k JOIN slots s ON s.slot = k.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND ($2::timestamptz IS NULL OR (k.created_at, k.key_id) < ($2, $3::text COLLATE "C"))
   AND ($4::text IS NULL OR k.account = $4 OR (k.account = '' AND k.key_id = $4 COLLATE "C"))
 ORDER BY k.created_at DESC, k.key_id DESC
 LIMIT $1
