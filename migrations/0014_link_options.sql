-- Link options: what a link may have besides its target, and which API keys made and changed it.
--
-- A link without options costs no more than before: the columns are null or at their default, and the arguments of the
-- functions are null. Old workers call the old functions; the links that they make have no options.
--
-- `created_by` and `changed_by` are ids of API keys, '' for nobody. `created_by` is null in rows that an old function has
-- made: then it is `owner`. `changed_by` is null if nobody has changed the link. `rules` is JSON, which the service checks.

ALTER TABLE links
    ADD COLUMN enabled       boolean NOT NULL DEFAULT true,
    ADD COLUMN starts_at     timestamptz,
    ADD COLUMN expired_url   text,
    ADD COLUMN note          text,
    ADD COLUMN forward_query boolean NOT NULL DEFAULT false,
    ADD COLUMN forward_path  boolean NOT NULL DEFAULT false,
    ADD COLUMN max_clicks    bigint CHECK (max_clicks > 0),
    ADD COLUMN password_hash text,
    ADD COLUMN rules         text,
    ADD COLUMN created_by    text COLLATE "C",
    ADD COLUMN changed_by    text COLLATE "C";

CREATE FUNCTION link_create_v2(
    p_slot smallint, p_code text, p_owner text, p_by text, p_token uuid,
    p_url text, p_title text, p_tags text[], p_redirect_status smallint, p_expires_at timestamptz,
    p_enabled boolean, p_starts_at timestamptz, p_expired_url text, p_note text,
    p_forward_query boolean DEFAULT false, p_forward_path boolean DEFAULT false, p_max_clicks bigint DEFAULT NULL,
    p_password_hash text DEFAULT NULL, p_rules text DEFAULT NULL,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT created_at timestamptz
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE found_token uuid;
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO links AS l (slot, code, xid, version, url, title, tags, redirect_status, created_at, expires_at,
                            owner, token, enabled, starts_at, expired_url, note, forward_query, forward_path,
                            max_clicks, password_hash, rules, created_by)
         VALUES (p_slot, p_code, pg_current_xact_id(), 1, p_url, p_title, p_tags, p_redirect_status,
                 clock_timestamp(), p_expires_at, p_owner, p_token, p_enabled, p_starts_at, p_expired_url, p_note,
                 p_forward_query, p_forward_path, p_max_clicks, p_password_hash, p_rules, p_by)
    ON CONFLICT (slot, code) DO NOTHING RETURNING l.created_at INTO created_at;
    IF FOUND THEN RETURN; END IF;
    SELECT l.token, l.created_at INTO STRICT found_token, created_at
      FROM links l WHERE l.slot = p_slot AND l.code = p_code;
    IF found_token <> p_token THEN outcome := 'taken'; created_at := NULL; END IF;
END $$;

-- As `link_create_many_v1`. An array of values that may be left out is null where all links have the default, and so may
-- each element be.
CREATE FUNCTION link_create_many_v2(
    p_slots smallint[], p_codes text[], p_owners text[], p_by text[], p_tokens uuid[],
    p_urls text[], p_titles text[], p_tags text[], p_redirect_statuses smallint[], p_expires_at timestamptz[],
    p_enabled boolean[], p_starts_at timestamptz[], p_expired_urls text[], p_notes text[],
    p_forward_query boolean[] DEFAULT NULL, p_forward_path boolean[] DEFAULT NULL, p_max_clicks bigint[] DEFAULT NULL,
    p_password_hashes text[] DEFAULT NULL, p_rules text[] DEFAULT NULL
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
                       owner, token, enabled, starts_at, expired_url, note, forward_query, forward_path,
                       max_clicks, password_hash, rules, created_by)
         SELECT i.slot, i.code, pg_current_xact_id(), 1, i.url, i.title,
                coalesce(i.tags::text[], '{}'), i.redirect_status, made_at, i.expires_at, i.owner, i.token,
                coalesce(i.enabled, true), i.starts_at, i.expired_url, i.note, coalesce(i.forward_query, false),
                coalesce(i.forward_path, false), i.max_clicks, i.password_hash, i.rules, i.made_by
           FROM unnest(p_slots, p_codes, p_owners, p_by, p_tokens, p_urls, p_titles, p_tags, p_redirect_statuses,
                       p_expires_at, p_enabled, p_starts_at, p_expired_urls, p_notes, p_forward_query,
                       p_forward_path, p_max_clicks, p_password_hashes, p_rules) WITH ORDINALITY
             AS i (slot, code, owner, made_by, token, url, title, tags, redirect_status, expires_at, enabled,
                   starts_at, expired_url, note, forward_query, forward_path, max_clicks, password_hash, rules, place)
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

-- `p_fields` names the columns to set, `p_by` is the key that changes them. A null `p_owner` is an admin. `p_delete` makes
-- the row a tombstone.
CREATE FUNCTION link_change_v2(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_by text, p_token uuid, p_delete boolean,
    p_fields text[], p_url text, p_title text, p_tags text[], p_redirect_status smallint, p_expires_at timestamptz,
    p_enabled boolean, p_starts_at timestamptz, p_expired_url text, p_note text,
    p_forward_query boolean DEFAULT NULL, p_forward_path boolean DEFAULT NULL, p_max_clicks bigint DEFAULT NULL,
    p_password_hash text DEFAULT NULL, p_rules text DEFAULT NULL,
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
        changed_by = p_by,
        deleted_at = CASE WHEN p_delete THEN clock_timestamp() END,
        url = CASE WHEN 'url' = ANY (p_fields) THEN p_url ELSE l.url END,
        title = CASE WHEN 'title' = ANY (p_fields) THEN p_title ELSE l.title END,
        tags = CASE WHEN 'tags' = ANY (p_fields) THEN p_tags ELSE l.tags END,
        redirect_status = CASE WHEN 'redirect_status' = ANY (p_fields) THEN p_redirect_status
                               ELSE l.redirect_status END,
        expires_at = CASE WHEN 'expires_at' = ANY (p_fields) THEN p_expires_at ELSE l.expires_at END,
        enabled = CASE WHEN 'enabled' = ANY (p_fields) THEN p_enabled ELSE l.enabled END,
        starts_at = CASE WHEN 'starts_at' = ANY (p_fields) THEN p_starts_at ELSE l.starts_at END,
        expired_url = CASE WHEN 'expired_url' = ANY (p_fields) THEN p_expired_url ELSE l.expired_url END,
        note = CASE WHEN 'note' = ANY (p_fields) THEN p_note ELSE l.note END,
        forward_query = CASE WHEN 'forward_query' = ANY (p_fields) THEN p_forward_query ELSE l.forward_query END,
        forward_path = CASE WHEN 'forward_path' = ANY (p_fields) THEN p_forward_path ELSE l.forward_path END,
        max_clicks = CASE WHEN 'max_clicks' = ANY (p_fields) THEN p_max_clicks ELSE l.max_clicks END,
        password_hash = CASE WHEN 'password_hash' = ANY (p_fields) THEN p_password_hash ELSE l.password_hash END,
        rules = CASE WHEN 'rules' = ANY (p_fields) THEN p_rules ELSE l.rules END
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;

-- As `link_restore_v1`; `p_by` is the key that restores the link.
CREATE FUNCTION link_restore_v2(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_by text, p_token uuid,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.* INTO link FROM links l WHERE l.slot = p_slot AND l.code = p_code FOR UPDATE;
    outcome := CASE WHEN link.code IS NULL THEN 'missing'
                    WHEN link.owner <> p_owner THEN 'forbidden'
                    WHEN link.change_token = p_token THEN 'ok'
                    WHEN link.deleted_at < clock_timestamp() - interval '30 days' THEN 'gone'
                    WHEN link.version <> p_if_match THEN 'mismatch'
                    ELSE 'ok' END;
    IF outcome <> 'ok' OR link.deleted_at IS NULL THEN RETURN; END IF;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = p_token, changed_by = p_by,
                       deleted_at = NULL
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;
