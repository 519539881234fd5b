-- name: watches
SELECT json_agg(w)::text FROM webhook_watches w

-- name: take_watches
SELECT webhook_watch_v1(array_agg(webhook_id), array_agg(version), array_agg(account), array_agg(kinds::text),
                        array_agg(since), '{}')
  FROM json_populate_recordset(NULL::webhook_watches, $1::json)
