-- name: apply
SELECT slot, outcome, peer, epoch, last_entry
  FROM clicks_apply_v5($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)

-- name: owners
-- Of the links that have an account: their places in the arrays, from 1.
SELECT place, owner, tags FROM clicks_owners_v1($1, $2)
