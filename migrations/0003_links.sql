-- Links, and the fenced functions that write them.
--
-- A deleted link stays as a tombstone: its code is never assigned again, and a hand-off copies a delete like any
-- other row. `token` identifies the create that made the row, `change_token` its last change: a caller that lost a
-- reply calls again and finds its own token. `xid` is the last transaction that wrote the row; a hand-off's catch-up
-- copies the rows whose xid is not older than its last snapshot.

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
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
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

-- Many links in one call. Every array has one element per link. `p_titles`, `p_tags` and `p_expires_at` may be null,
-- as may each of their elements; an element of `p_tags` is the text of an array. Arrays rather than JSON: PostgreSQL
-- spends about a third less on the same links.
--
-- The first row of the answer has no place: it answers each link that no other row answers. Every other row has the
-- place of its link, counted from 0. A call in which nothing is taken, moved or busy returns the first row alone.
--
-- The fence is that of slots_fence_v1, except that the INSERT reads the states itself: it is the statement after the
-- locks, so its snapshot contains whatever a freeze has committed.
CREATE FUNCTION link_create_many_v1(
    p_slots smallint[], p_codes text[], p_urls text[], p_titles text[], p_tags text[], p_redirect_statuses smallint[],
    p_expires_at timestamptz[], p_owners text[], p_tokens uuid[]
) RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, created_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan  -- look up each link by its key, however many there are
AS $$
#variable_conflict use_column
DECLARE
    made_at timestamptz;
    made bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'fenced writes need READ COMMITTED';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1397637456, q.slot)
       FROM (SELECT slot FROM unnest(p_slots) AS u (slot) ORDER BY slot) q;
    made_at := clock_timestamp();
    INSERT INTO links (slot, code, xid, version, url, title, tags, redirect_status, created_at, expires_at,
                       owner, token)
         SELECT i.slot, i.code, pg_current_xact_id(), 1, i.url, i.title,
                coalesce(i.tags::text[], '{}'), i.redirect_status, made_at, i.expires_at, i.owner, i.token
           FROM unnest(p_slots, p_codes, p_urls, p_titles, p_tags, p_redirect_statuses, p_expires_at, p_owners,
                       p_tokens) WITH ORDINALITY
             AS i (slot, code, url, title, tags, redirect_status, expires_at, owner, token, place)
           JOIN slots s ON s.slot = i.slot AND write_outcome_v1(s.state) = 'ok'
          WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
          ORDER BY i.slot, i.code COLLATE "C", i.place
    ON CONFLICT (slot, code) DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    outcome := 'ok';
    created_at := made_at;
    RETURN NEXT;
    IF made = cardinality(p_slots) THEN RETURN; END IF;
    -- A slot that accepts writes now but has no row of the link did not accept them when the INSERT ran: 'busy'.
    RETURN QUERY
        SELECT q.place::integer - 1, q.outcome, q.peer, q.epoch, CASE WHEN q.outcome = 'ok' THEN q.created_at END
          FROM (SELECT i.place, s.peer, s.epoch, l.created_at,
                       CASE WHEN NOT EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
                            THEN 'busy'
                            WHEN s.slot IS NULL OR write_outcome_v1(s.state) <> 'ok'
                            THEN coalesce(write_outcome_v1(s.state), 'moved')
                            WHEN l.slot IS NULL THEN 'busy'
                            WHEN l.token <> i.token THEN 'taken'
                            ELSE 'ok' END AS outcome
                  FROM unnest(p_slots, p_codes, p_tokens) WITH ORDINALITY AS i (slot, code, token, place)
                  LEFT JOIN slots s ON s.slot = i.slot
                  LEFT JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C") q
         WHERE q.outcome <> 'ok' OR q.created_at <> made_at;
END $$;

-- Whether the caller may change the row; the order decides which reason a client receives. A row that already carries
-- the caller's token was changed by this call before its reply was lost: 'done'.
CREATE FUNCTION link_change_verdict_v1(l links, p_if_match bigint, p_owner text, p_token uuid)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (l).code IS NULL THEN 'missing'
                WHEN (l).owner <> p_owner THEN 'forbidden'
                WHEN (l).change_token = p_token THEN 'done'
                WHEN (l).deleted_at IS NOT NULL THEN 'gone'
                WHEN (l).version <> p_if_match THEN 'mismatch'
                ELSE 'ok' END
$$;

-- `p_fields` names the columns to set. A null `p_owner` is an admin. `p_delete` makes the row a tombstone.
CREATE FUNCTION link_change_v1(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_token uuid, p_delete boolean,
    p_fields text[], p_url text, p_title text, p_tags text[], p_redirect_status smallint,
    p_expires_at timestamptz,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
