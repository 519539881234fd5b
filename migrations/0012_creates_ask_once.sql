-- Many links in one call ask what the fence has said of a slot only if it has refused one of them, which it hardly
-- ever does. The function answers as that of 0003, but names no peer and no epoch where the answer is 'ok'.

CREATE OR REPLACE FUNCTION link_create_many_v1(p_items jsonb)
RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, created_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fences jsonb;  -- slot -> the refusal
BEGIN
    SELECT jsonb_object_agg(f.slot, to_jsonb(f)) INTO fences
      FROM slots_fence_v1((SELECT array_agg(i.slot) FROM jsonb_to_recordset(p_items) AS i (slot smallint))) f
     WHERE f.outcome <> 'ok';
    INSERT INTO links (slot, code, xid, version, url, title, tags, redirect_status, created_at, expires_at,
                       owner, token)
         SELECT i.slot, i.code, pg_current_xact_id(), 1, i.url, i.title, i.tags, i.redirect_status,
                clock_timestamp(), i.expires_at, i.owner, i.token
           FROM jsonb_to_recordset(p_items) AS i (
                    place integer, slot smallint, code text, url text, title text, tags text[],
                    redirect_status smallint, expires_at timestamptz, owner text, token uuid)
          WHERE fences IS NULL OR NOT fences ? i.slot::text
          ORDER BY i.slot, i.code COLLATE "C", i.place
    ON CONFLICT (slot, code) DO NOTHING;
    RETURN QUERY
        SELECT i.place,
               CASE WHEN fences ? i.slot::text THEN fences -> i.slot::text ->> 'outcome'
                    WHEN l.token = i.token THEN 'ok' ELSE 'taken' END,
               fences -> i.slot::text ->> 'peer',
               (fences -> i.slot::text ->> 'epoch')::bigint,
               CASE WHEN l.token = i.token THEN l.created_at END
          FROM jsonb_to_recordset(p_items) AS i (place integer, slot smallint, code text, token uuid)
          LEFT JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C";
END $$;
