-- A repeated import tells the links that were there already from those that it has made.

-- As in 0029, but `created_at` is null for a row that was there before this call. The other outcomes stay as they are, so
-- a worker that does not look at it goes on.
CREATE OR REPLACE FUNCTION link_import_v1(
    p_slots smallint[], p_codes text[], p_owners text[], p_by text[], p_tokens uuid[], p_created_at timestamptz[],
    p_imported_clicks bigint[], p_urls text[], p_titles text[], p_tags text[], p_redirect_statuses smallint[],
    p_expires_at timestamptz[], p_enabled boolean[], p_starts_at timestamptz[], p_expired_urls text[], p_notes text[],
    p_forward_query boolean[], p_forward_path boolean[], p_max_clicks bigint[], p_password_hashes text[],
    p_rules text[]
) RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, created_at timestamptz, url text)
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
                       max_clicks, password_hash, rules, created_by, imported_clicks)
         SELECT i.slot, i.code, pg_current_xact_id(), 1, i.url, i.title,
                coalesce(i.tags::text[], '{}'), i.redirect_status, coalesce(i.created_at, made_at), i.expires_at,
                i.owner, i.token, coalesce(i.enabled, true), i.starts_at, i.expired_url, i.note,
                coalesce(i.forward_query, false), coalesce(i.forward_path, false), i.max_clicks, i.password_hash,
                i.rules, i.made_by, i.imported_clicks
           FROM unnest(p_slots, p_codes, p_owners, p_by, p_tokens, p_created_at, p_imported_clicks, p_urls, p_titles,
                       p_tags, p_redirect_statuses, p_expires_at, p_enabled, p_starts_at, p_expired_urls, p_notes,
                       p_forward_query, p_forward_path, p_max_clicks, p_password_hashes, p_rules) WITH ORDINALITY
             AS i (slot, code, owner, made_by, token, created_at, imported_clicks, url, title, tags, redirect_status,
                   expires_at, enabled, starts_at, expired_url, note, forward_query, forward_path, max_clicks,
                   password_hash, rules, place)
           JOIN slots s ON s.slot = i.slot AND write_outcome_v1(s.state) = 'ok'
          WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
          ORDER BY i.slot, i.code COLLATE "C", i.place
    ON CONFLICT (slot, code) DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF EXISTS (SELECT FROM webhook_watches) THEN PERFORM webhook_links_made_v1(p_slots, p_codes); END IF;
    outcome := 'ok';
    created_at := made_at;
    RETURN NEXT;
    IF made = cardinality(p_slots) THEN RETURN; END IF;
    -- A slot that accepts writes now but has no row of the link did not accept them when the INSERT ran: 'busy'.
    RETURN QUERY
        SELECT q.place::integer - 1, q.outcome, q.peer, q.epoch, q.created_at, q.url
          FROM (SELECT i.place, s.peer, s.epoch,
                       CASE WHEN l.xid = pg_current_xact_id() THEN l.created_at END AS created_at,
                       CASE WHEN l.deleted_at IS NULL THEN l.url END AS url,
                       CASE WHEN NOT EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
                            THEN 'busy'
                            WHEN s.slot IS NULL OR write_outcome_v1(s.state) <> 'ok'
                            THEN coalesce(write_outcome_v1(s.state), 'moved')
                            WHEN l.slot IS NULL THEN 'busy'
                            WHEN l.token <> i.token THEN 'taken'
                            ELSE 'ok' END AS outcome
                  FROM unnest(p_slots, p_codes, p_tokens) WITH ORDINALITY AS i (slot, code, token, place)
                  LEFT JOIN slots s ON s.slot = i.slot
                  LEFT JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C") q;
END $$;
