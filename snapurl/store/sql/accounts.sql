-- name: add
SELECT outcome, peer, epoch FROM account_add_v1($1, $2, $3, $4, $5)

-- name: rename
SELECT r.outcome, r.peer, r.epoch, (r.account).account_id, (r.account).name, (r.account).created_at,
       (r.account).created_by
  FROM account_rename_v1($1, $2, $3) r

-- name: find
SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            THEN coalesce(read_outcome_v1(s.state), 'moved') ELSE 'busy' END AS outcome, s.peer, s.epoch,
       a.account_id, a.name, a.created_at, a.created_by
  FROM (SELECT $1::smallint AS slot) q
  LEFT JOIN slots s USING (slot)
  LEFT JOIN accounts a ON a.slot = q.slot AND a.account_id = $2

-- name: page
-- $1 rows at most (null: all), before the keyset ($2, $3) if given, newest first; those called $4 if given.
SELECT a.account_id, a.name, a.created_at, a.created_by
  FROM accounts a JOIN slots s ON s.slot = a.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
   AND ($2::timestamptz IS NULL OR (a.created_at, a.account_id) < ($2, $3::text COLLATE "C"))
   AND ($4::text IS NULL OR a.name = $4)
 ORDER BY a.created_at DESC, a.account_id DESC
 LIMIT $1

-- name: transfer_links
SELECT link_transfer_all_v1($1, $2, $3, $4) AS given

-- name: count_links
-- Also the deleted ones.
SELECT count(*) AS links
  FROM links l JOIN slots s ON s.slot = l.slot AND read_outcome_v1(s.state) = 'ok'
 WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time()) AND l.owner = $1

-- name: any_link
(SELECT l.code
   FROM links l JOIN slots s ON s.slot = l.slot AND read_outcome_v1(s.state) = 'ok'
  WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
    AND l.owner = $1 AND l.deleted_at IS NULL LIMIT 1)
UNION ALL
(SELECT l.code
   FROM links l JOIN slots s ON s.slot = l.slot AND read_outcome_v1(s.state) = 'ok'
  WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
    AND l.owner = $1 AND l.deleted_at IS NOT NULL LIMIT 1)
