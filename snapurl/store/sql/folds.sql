-- name: foldable
SELECT slot, oldest FROM clicks_foldable_v1($1, $2, $3)

-- name: links
SELECT outcome, peer, epoch, folded, CASE WHEN more_from IS NOT NULL THEN ARRAY[more_from] END AS more
  FROM clicks_fold_links_v1($1, $2, $3, $4, $5)

-- name: groups
SELECT outcome, peer, epoch, folded, CASE WHEN more_key IS NOT NULL THEN ARRAY[more_scope, more_key] END AS more
  FROM clicks_fold_groups_v1($1, $2, $3, $4, $5, $6)
