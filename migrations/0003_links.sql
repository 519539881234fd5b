-- Links, and the fenced functions that write them.
--
-- A deleted link stays as a tombstone: its code is never given out again, and a delete is a row like any
-- other when the slot moves. `token` names the create that made the row and `change_token` its last change,
-- so that a caller whose reply was lost can ask for the outcome by calling again. `xid` is the last writing
-- transaction; a catch-up of a move copies the rows whose xid is not older than its last snapshot.

CREATE TABLE links (
    slot            smallint NOT NULL,
    code            text COLLATE "C" NOT NULL,
    xid             xid8     NOT NULL DEFAULT pg_current_xact_id(),
    version         bigint   NOT NULL CHECK (version > 0),
    url             text     NOT NULL,
    title           text,
    tags            text[]   NOT NULL,
    redirect_status smallint NOT NULL CHECK (redirect_status IN (301, 302, 307, 308)),
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    deleted_at      timestamptz,
    owner           text COLLATE "C" NOT NULL,
    token           uuid     NOT NULL,
    change_token    uuid,
    PRIMARY KEY (slot, code)
);
CREATE INDEX links_newest ON links (created_at DESC, code DESC) WHERE deleted_at IS NULL;
CREATE INDEX links_newest_of_owner ON links (owner, created_at DESC, code DESC) WHERE deleted_at IS NULL;

CREATE FUNCTION link_create_v1(
    p_slot smallint, p_code text, p_url text, p_title text, p_tags text[], p_redirect_status smallint,
    p_expires_at timestamptz, p_owner text, p_token uuid,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT created_at timestamptz
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE found_token uuid;
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO links AS l (slot, code, xid, version, url, title, tags, redirect_status, created_at, expires_at,
                            owner, token)
         VALUES (p_slot, p_code, pg_current_xact_id(), 1, p_url, p_title, p_tags, p_redirect_status,
                 clock_timestamp(), p_expires_at, p_owner, p_token)
    ON CONFLICT (slot, code) DO NOTHING RETURNING l.created_at INTO created_at;
    IF FOUND THEN RETURN; END IF;
    SELECT l.token, l.created_at INTO STRICT found_token, created_at
      FROM links l WHERE l.slot = p_slot AND l.code = p_code;
    IF found_token <> p_token THEN outcome := 'taken'; created_at := NULL; END IF;
END $$;

-- Many links of this shard in one call; `p_items` is a JSON array of objects with the columns of `item`.
-- The answer has one row per item, by its place in the array.
CREATE FUNCTION link_create_many_v1(p_items jsonb)
RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, created_at timestamptz)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE fences jsonb;
BEGIN
    SELECT jsonb_object_agg(f.slot, to_jsonb(f)) INTO fences
      FROM slots_fence_v1((SELECT array_agg((i ->> 'slot')::smallint) FROM jsonb_array_elements(p_items) i)) f;
    INSERT INTO links (slot, code, xid, version, url, title, tags, redirect_status, created_at, expires_at,
                       owner, token)
         SELECT i.slot, i.code, pg_current_xact_id(), 1, i.url, i.title, i.tags, i.redirect_status,
                clock_timestamp(), i.expires_at, i.owner, i.token
           FROM jsonb_to_recordset(p_items) AS i (
                    place integer, slot smallint, code text, url text, title text, tags text[],
                    redirect_status smallint, expires_at timestamptz, owner text, token uuid)
          WHERE fences -> i.slot::text ->> 'outcome' = 'ok'
          ORDER BY i.slot, i.code COLLATE "C", i.place
    ON CONFLICT (slot, code) DO NOTHING;
    RETURN QUERY
        SELECT i.place,
               CASE WHEN fences -> i.slot::text ->> 'outcome' <> 'ok' THEN fences -> i.slot::text ->> 'outcome'
                    WHEN l.token = i.token THEN 'ok' ELSE 'taken' END,
               fences -> i.slot::text ->> 'peer',
               (fences -> i.slot::text ->> 'epoch')::bigint,
               CASE WHEN l.token = i.token THEN l.created_at END
          FROM jsonb_to_recordset(p_items) AS i (place integer, slot smallint, code text, token uuid)
          LEFT JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C";
END $$;

-- Whether the caller may change the row, in the order in which a client should hear of it. A row that already
-- carries the caller's token was changed by this very call before its reply was lost: 'done'.
CREATE FUNCTION link_change_verdict_v1(l links, p_if_match bigint, p_owner text, p_token uuid)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (l).code IS NULL THEN 'missing'
                WHEN (l).owner <> p_owner THEN 'forbidden'
                WHEN (l).change_token = p_token THEN 'done'
                WHEN (l).deleted_at IS NOT NULL THEN 'gone'
                WHEN (l).version <> p_if_match THEN 'mismatch'
                ELSE 'ok' END
$$;

-- `p_fields` names the columns to set; `p_owner` NULL is an admin; `p_delete` makes the row a tombstone.
CREATE FUNCTION link_change_v1(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_token uuid, p_delete boolean,
    p_fields text[], p_url text, p_title text, p_tags text[], p_redirect_status smallint,
    p_expires_at timestamptz,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.* INTO link FROM links l WHERE l.slot = p_slot AND l.code = p_code FOR UPDATE;
    outcome := link_change_verdict_v1(link, p_if_match, p_owner, p_token);
    IF outcome = 'done' THEN outcome := 'ok'; RETURN; END IF;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE links l SET
        xid = pg_current_xact_id(),
        version = l.version + 1,
        change_token = p_token,
        deleted_at = CASE WHEN p_delete THEN clock_timestamp() END,
        url = CASE WHEN 'url' = ANY (p_fields) THEN p_url ELSE l.url END,
        title = CASE WHEN 'title' = ANY (p_fields) THEN p_title ELSE l.title END,
        tags = CASE WHEN 'tags' = ANY (p_fields) THEN p_tags ELSE l.tags END,
        redirect_status = CASE WHEN 'redirect_status' = ANY (p_fields) THEN p_redirect_status
                               ELSE l.redirect_status END,
        expires_at = CASE WHEN 'expires_at' = ANY (p_fields) THEN p_expires_at ELSE l.expires_at END
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;
