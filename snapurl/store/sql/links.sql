-- name: create
SELECT outcome, peer, epoch, created_at
  FROM link_create_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)

-- name: create_many
SELECT place, outcome, peer, epoch, created_at
  FROM link_create_many_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)

-- name: import
SELECT place, outcome, peer, epoch, created_at, url
  FROM link_import_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)

-- name: import_days
SELECT place, outcome, peer, epoch FROM link_import_days_v1($1, $2, $3, $4, $5)

-- name: change
SELECT c.outcome, c.peer, c.epoch, (c.link).{link}
  FROM link_change_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                      $19, $20, $21, $22) c

-- name: transfer
SELECT c.outcome, c.peer, c.epoch, (c.link).{link} FROM link_transfer_v1($1, $2, $3, $4, $5, $6) c

-- name: restore
SELECT c.outcome, c.peer, c.epoch, (c.link).{link} FROM link_restore_v2($1, $2, $3, $4, $5, $6) c

-- name: rename
SELECT c.outcome, c.peer, c.epoch, (c.link).{link} FROM link_rename_v1($1, $2, $3, $4, $5, $6, $7, $8) c

-- name: get
-- The slot's state and the row in one statement, so that a missing row at a non-owner is "moved", never 404; "busy" on
-- a server that is not attested.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       l.{link}, l.change_token
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN links l ON l.slot = q.slot AND l.code = $2

-- name: history
-- As `get`; `changes` is a JSON array of the link's changes, oldest first.
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       l.{link},
       (SELECT json_agg(json_build_array(h.version, h.kind, h.changed_at, h.changed_by, h.fields) ORDER BY h.version)
          FROM link_history h WHERE h.slot = l.slot AND h.code = l.code) AS changes
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN links l ON l.slot = q.slot AND l.code = $2

-- name: find
-- As `get`, for many links: $1 slots, $2 codes. `place` says which one a row answers. Each link is looked up by its key,
-- whatever the planner believes: a sub-select with a limit is no join that it could turn around, and from arrays that
-- come out of sub-selects it cannot see how long they are, so that it plans once and not each time.
SELECT q.place, CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       l.version, l.url, l.redirect_status, l.expires_at, l.deleted_at IS NOT NULL AS is_deleted,
       CASE WHEN NOT l.enabled OR l.starts_at IS NOT NULL OR l.expired_url IS NOT NULL OR l.forward_query
                 OR l.forward_path OR l.max_clicks IS NOT NULL OR l.password_hash IS NOT NULL
                 OR l.rules IS NOT NULL
            THEN ROW (l.enabled, l.starts_at, l.expired_url, l.forward_query, l.forward_path, l.max_clicks,
                      l.password_hash, l.rules) END AS options
  FROM unnest((SELECT $1::smallint[]), (SELECT $2::text[])) WITH ORDINALITY q (slot, code, place)
  LEFT JOIN LATERAL (SELECT * FROM slots WHERE slot = q.slot LIMIT 1) s ON true
  LEFT JOIN LATERAL (SELECT * FROM links WHERE slot = q.slot AND code = q.code LIMIT 1) l ON true

-- name: use
SELECT outcome, peer, epoch, given, uses_left FROM link_use_v1($1, $2, $3, $4)

-- name: used
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch, u.used
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN link_uses u ON u.slot = q.slot AND u.code = $2

-- name: reserve
SELECT place, outcome, peer, epoch, nonce, fingerprint FROM intent_claim_v1($1)

-- name: purge_idempotency_records
SELECT intents_purge_v1($1) AS purged
