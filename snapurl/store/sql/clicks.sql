-- name: apply
SELECT slot, outcome, peer, epoch, last_entry FROM clicks_apply_v3($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
