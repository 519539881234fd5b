-- name: all_states
SELECT slot, state, epoch, peer, move_token FROM slots

-- name: snapshot_xmin
SELECT pg_snapshot_xmin(pg_current_snapshot())::text

-- name: sharded_columns
-- Every table with a slot, except `slots` itself: its columns without xid, and its key, in their order.
SELECT c.table_name::text AS name,
       array_agg(c.column_name::text ORDER BY c.ordinal_position) FILTER (WHERE c.column_name <> 'xid') AS columns,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = format('public.%I', c.table_name)::regclass AND i.indisprimary) AS key
  FROM information_schema.columns c
 WHERE c.table_schema = 'public' AND c.table_name <> 'slots'
 GROUP BY c.table_name
HAVING bool_or(c.column_name = 'slot')
 ORDER BY c.table_name
