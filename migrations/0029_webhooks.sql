-- Webhooks: who is told of changes of links, and the messages that tell them.
--
-- A webhook is stored in the slot of its id. A message is stored in the slot of its link, moves with it, and is written in
-- the transaction of the change that it tells of: a trigger does so, which no function that changes links can forget. The
-- functions that make links do it themselves: a trigger after each INSERT would cost every create, and would tell of what a
-- hand-off or a restore copies. Without a webhook both look at an empty table, once per statement.
--
-- A shard has to know which webhooks there are, wherever these are stored: `webhook_watches` is its copy. It is no table
-- of slots. These keep it complete: the service adds a webhook on every shard before it answers that there is one, a
-- hand-off brings the watches of its source to its target, and the sender compares all copies every few seconds.
-- A watch that nobody has renewed for a day is over, so that without a sender messages do not pile up for ever.
--
-- Of the messages of a webhook about one link, the first that waits is sent before the next one is looked at: `version`
-- and `at` are their order. Clicks are told once per link and minute: the message gathers them until it is due, and until
-- then it holds up no other. Every change of a message passes the fence. Rows are deleted in slots in state 'owned' alone.

-- A move that copies slots now does not know the tables.
LOCK TABLE slots IN SHARE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM slots WHERE state NOT IN ('owned', 'released')) THEN
        RAISE EXCEPTION 'slots are in hand-off: run `snapurl-reshard pause`, wait until `status` shows none, migrate again';
    END IF;
END $$;

-- `account` is '' for the links of all accounts. `secrets` sign together until `rotated_at` is a day ago: then only the first
-- does. `disabled_why` is '' while it is enabled.
CREATE TABLE webhooks (
    slot         smallint NOT NULL,
    webhook_id   text COLLATE "C" NOT NULL,
    xid          xid8     NOT NULL DEFAULT pg_current_xact_id(),
    version      bigint   NOT NULL,
    account      text COLLATE "C" NOT NULL,
    url          text     NOT NULL,
    kinds        text[]   NOT NULL,
    note         text     NOT NULL,
    secrets      text[]   NOT NULL,
    rotated_at   timestamptz,
    created_at   timestamptz NOT NULL,
    created_by   text     NOT NULL,
    disabled_at  timestamptz,
    disabled_why text     NOT NULL DEFAULT '',
    deleted_at   timestamptz,
    PRIMARY KEY (slot, webhook_id)
);

CREATE TABLE webhook_watches (
    webhook_id text COLLATE "C" PRIMARY KEY,
    version    bigint NOT NULL,
    account    text COLLATE "C" NOT NULL,
    kinds      text[] NOT NULL,
    since      timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL
);

-- `holder` is the sender that delivers it now, '' if none does. `due_at` is when it is to be sent, or when its holder has
-- taken too long. `answer` says what came of the last attempt.
CREATE TABLE webhook_messages (
    slot       smallint NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    xid        xid8     NOT NULL DEFAULT pg_current_xact_id(),
    webhook_id text COLLATE "C" NOT NULL,
    code       text COLLATE "C" NOT NULL,
    version    bigint   NOT NULL,
    kind       text     NOT NULL,
    at         timestamptz NOT NULL,
    data       jsonb    NOT NULL,
    state      text     NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts   integer  NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL,
    holder     text     NOT NULL DEFAULT '',
    tried_at   timestamptz,
    status     integer,
    answer     text     NOT NULL DEFAULT '',
    PRIMARY KEY (slot, message_id)
);
CREATE INDEX webhook_messages_due ON webhook_messages (webhook_id, due_at) WHERE state = 'waiting';
CREATE INDEX webhook_messages_of_link ON webhook_messages (webhook_id, code, version, at, message_id) WHERE state = 'waiting';
CREATE INDEX webhook_messages_dead ON webhook_messages (webhook_id) WHERE state = 'dead';
CREATE INDEX webhook_messages_held ON webhook_messages (holder) WHERE holder <> '';
CREATE INDEX webhook_messages_log ON webhook_messages (webhook_id, at DESC, message_id DESC);

-- ---- writing messages -------------------------------------------------------------------------------------------

CREATE FUNCTION webhook_message_id_v1() RETURNS text LANGUAGE sql VOLATILE AS $$
    SELECT 'msg_' || replace(gen_random_uuid()::text, '-', '')
$$;

-- The id of the one message that tells a webhook of something: what that is follows from `p_about`.
CREATE FUNCTION webhook_message_id_of_v1(p_about text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'msg_' || left(encode(sha256(convert_to(p_about, 'UTF8')), 'hex'), 32)
$$;

-- What a message says of a link: its columns, without those that are ours. Of one that is very long, rules and note are
-- left out.
CREATE FUNCTION webhook_link_v1(l links) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
    SELECT to_jsonb(l) - '{slot,xid,token,change_token,password_hash}'::text[]
                       - CASE WHEN is_long THEN '{note,rules}'::text[] ELSE '{}' END
           || jsonb_build_object('has_password', (l).password_hash IS NOT NULL, 'is_cut', is_long)
      FROM (SELECT length(coalesce((l).note, '')) + length(coalesce((l).rules, '')) > 32768 AS is_long) q
$$;

-- The webhooks that are told of a kind of change of an account's links.
CREATE FUNCTION webhook_watching_v1(p_kind text, p_account text, p_account_before text) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT w.webhook_id FROM webhook_watches w
     WHERE w.account IN ('', p_account, p_account_before) AND p_kind = ANY (w.kinds)
       AND w.renewed_at > now() - interval '1 day'
$$;

-- Tells of those of these links that this transaction has made; for a function that has passed the fence.
CREATE FUNCTION webhook_links_made_v1(p_slots smallint[], p_codes text[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    INSERT INTO webhook_messages (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         SELECT l.slot, webhook_message_id_v1(), w.webhook_id, l.code, l.version, 'link.created', clock_timestamp(),
                webhook_link_v1(l), clock_timestamp()
           FROM (SELECT DISTINCT u.slot, u.code FROM unnest(p_slots, p_codes) AS u (slot, code)) i
           JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C" AND l.xid = pg_current_xact_id()
          CROSS JOIN LATERAL webhook_watching_v1('link.created', l.owner, l.owner) AS w (webhook_id)
$$;

-- The functions that make links, as they were, which now tell of them.
CREATE OR REPLACE FUNCTION link_create_v2(
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
    IF FOUND THEN
        IF EXISTS (SELECT FROM webhook_watches) THEN PERFORM webhook_links_made_v1(ARRAY[p_slot], ARRAY[p_code]); END IF;
        RETURN;
    END IF;
    SELECT l.token, l.created_at INTO STRICT found_token, created_at
      FROM links l WHERE l.slot = p_slot AND l.code = p_code;
    IF found_token <> p_token THEN outcome := 'taken'; created_at := NULL; END IF;
END $$;

CREATE OR REPLACE FUNCTION link_create_many_v2(
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
    IF EXISTS (SELECT FROM webhook_watches) THEN PERFORM webhook_links_made_v1(p_slots, p_codes); END IF;
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
          FROM (SELECT i.place, s.peer, s.epoch, l.created_at,
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

CREATE FUNCTION webhook_link_changed_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    kind text;
BEGIN
    IF NOT EXISTS (SELECT FROM public.webhook_watches) THEN RETURN NULL; END IF;
    kind := CASE WHEN OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN 'link.deleted'
                 WHEN OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL THEN 'link.restored'
                 WHEN OLD.enabled AND NOT NEW.enabled THEN 'link.disabled'
                 ELSE 'link.updated' END;
    INSERT INTO public.webhook_messages (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         SELECT NEW.slot, public.webhook_message_id_v1(), w.webhook_id, NEW.code, NEW.version, kind, clock_timestamp(),
                public.webhook_link_v1(NEW), clock_timestamp()
           FROM public.webhook_watching_v1(kind, NEW.owner, OLD.owner) AS w (webhook_id)
          WHERE EXISTS (SELECT FROM public.slots s WHERE s.slot = NEW.slot AND public.write_outcome_v1(s.state) = 'ok');
    RETURN NULL;
END $$;
CREATE TRIGGER links_told AFTER UPDATE ON links FOR EACH ROW WHEN (NEW.version <> OLD.version)
    EXECUTE FUNCTION webhook_link_changed_v1();

-- Tells of a link whose row has not changed; for a function that has passed the fence.
CREATE FUNCTION webhook_notify_v1(p_kind text, p_slot smallint, p_code text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    INSERT INTO webhook_messages (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         SELECT l.slot, webhook_message_id_v1(), w.webhook_id, l.code, l.version, p_kind, clock_timestamp(),
                webhook_link_v1(l), clock_timestamp()
           FROM links l CROSS JOIN LATERAL webhook_watching_v1(p_kind, l.owner, l.owner) AS w (webhook_id)
          WHERE l.slot = p_slot AND l.code = p_code
$$;

-- As before; tells of the last use.
CREATE OR REPLACE FUNCTION link_use_v1(
    p_slot smallint, p_code text, p_version bigint, p_wanted bigint,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT given bigint, OUT uses_left bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    most bigint;
    before bigint;
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.max_clicks, coalesce(u.used, 0) INTO most, before
      FROM links l LEFT JOIN link_uses u ON u.slot = l.slot AND u.code = l.code
     WHERE l.slot = p_slot AND l.code = p_code AND l.version = p_version AND l.deleted_at IS NULL;
    IF most IS NULL THEN outcome := 'changed'; RETURN; END IF;
    given := 0;
    IF p_wanted > 0 AND before < most THEN
        INSERT INTO link_uses (slot, code, xid, used) VALUES (p_slot, p_code, pg_current_xact_id(), 0)
        ON CONFLICT (slot, code) DO NOTHING;
        SELECT u.used INTO STRICT before FROM link_uses u WHERE u.slot = p_slot AND u.code = p_code FOR UPDATE;
        given := greatest(0, least(p_wanted, most - before));
        UPDATE link_uses u SET used = u.used + given, xid = pg_current_xact_id()
         WHERE u.slot = p_slot AND u.code = p_code AND given > 0;
    END IF;
    uses_left := greatest(0, most - before - given);
    IF given > 0 AND uses_left = 0 THEN
        PERFORM webhook_notify_v1('link.max_clicks_reached', p_slot, p_code);
    END IF;
END $$;

-- Adds clicks to the messages of this minute, which are due 5 s after it; for a function that has passed the fence. Calls
-- of a shard take turns.
CREATE FUNCTION webhook_notify_clicks_v1(p_slots smallint[], p_codes text[], p_clicks bigint[], p_bots bigint[]) RETURNS void
LANGUAGE sql VOLATILE SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET timezone = 'UTC' AS $$
    INSERT INTO webhook_messages AS m (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         SELECT c.slot, webhook_message_id_of_v1(concat_ws('/', 'link.clicks', w.webhook_id, c.code, t.minute)), w.webhook_id,
                c.code, l.version, 'link.clicks', t.minute + interval '1 minute',
                webhook_link_v1(l) || jsonb_build_object('new_clicks', c.clicks, 'new_bots', c.bots, 'clicks_from_at', t.minute),
                t.minute + interval '65 seconds'
           FROM (SELECT slot, code COLLATE "C" AS code, sum(clicks)::bigint AS clicks, sum(bots)::bigint AS bots
                   FROM unnest(p_slots, p_codes, p_clicks, p_bots) AS u (slot, code, clicks, bots)
                  GROUP BY slot, code COLLATE "C" ORDER BY slot, code COLLATE "C") c
           JOIN links l ON l.slot = c.slot AND l.code = c.code
          CROSS JOIN date_trunc('minute', clock_timestamp()) AS t (minute)
          CROSS JOIN LATERAL webhook_watching_v1('link.clicks', l.owner, l.owner) AS w (webhook_id)
    ON CONFLICT (slot, message_id) DO UPDATE SET
        xid = pg_current_xact_id(),
        data = m.data || jsonb_build_object(
            'new_clicks', (m.data ->> 'new_clicks')::bigint + (excluded.data ->> 'new_clicks')::bigint,
            'new_bots', (m.data ->> 'new_bots')::bigint + (excluded.data ->> 'new_bots')::bigint)
$$;

-- As `clicks_apply_v4`; tells webhooks of what it counts.
CREATE FUNCTION clicks_apply_v5(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[], c_bots bigint[], c_sources text[],
    c_visitors bigint[],
    g_scopes text[], g_keys text[], g_days date[], g_clicks bigint[], g_bots bigint[], g_sources text[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint, last_entry bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM clicks_apply_v4(
        p_stream, p_slots, p_firsts, p_lasts, c_slots, c_codes, c_days, c_clicks, c_bots, c_sources, c_visitors,
        g_scopes, g_keys, g_days, g_clicks, g_bots, g_sources);
    IF NOT FOUND AND EXISTS (SELECT FROM webhook_watches w WHERE 'link.clicks' = ANY (w.kinds)) THEN
        PERFORM webhook_notify_clicks_v1(c_slots, c_codes, c_clicks, c_bots);
    END IF;
END $$;

-- Tells of links that have expired since `p_since`, the next `p_limit` after the time and code of the last call. A link that
-- was told of already is not told of again. Returns how many links it looked at, and where to go on.
CREATE FUNCTION webhook_notify_expired_v1(
    p_since timestamptz, p_code text, p_limit integer, OUT looked_at bigint, OUT more_since timestamptz, OUT more_code text
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    found_slots smallint[];
    found_codes text[];
BEGIN
    looked_at := 0;
    IF NOT EXISTS (SELECT FROM webhook_watches w WHERE 'link.expired' = ANY (w.kinds)) THEN RETURN; END IF;
    SELECT array_agg(q.slot ORDER BY q.expires_at, q.code), array_agg(q.code ORDER BY q.expires_at, q.code), count(*),
           max(q.expires_at)
      INTO found_slots, found_codes, looked_at, more_since
      FROM (SELECT l.slot, l.code, l.expires_at FROM links l
              JOIN slots s ON s.slot = l.slot AND write_outcome_v1(s.state) = 'ok'
             WHERE l.expires_at >= p_since AND l.expires_at <= clock_timestamp() AND l.deleted_at IS NULL
               AND (l.expires_at, l.code) > (p_since, p_code COLLATE "C")
             ORDER BY l.expires_at, l.code LIMIT p_limit) q;
    IF looked_at = 0 THEN RETURN; END IF;
    more_code := found_codes[cardinality(found_codes)];
    PERFORM slots_fence_v1(found_slots);
    INSERT INTO webhook_messages (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         SELECT l.slot, webhook_message_id_of_v1(concat_ws('/', 'link.expired', w.webhook_id, l.code,
                                                           extract(epoch FROM l.expires_at))), w.webhook_id,
                l.code, l.version, 'link.expired', l.expires_at, webhook_link_v1(l), clock_timestamp()
           FROM unnest(found_slots, found_codes) AS u (slot, code)
           JOIN slots s ON s.slot = u.slot AND write_outcome_v1(s.state) = 'ok'
           JOIN links l ON l.slot = u.slot AND l.code = u.code COLLATE "C"
          CROSS JOIN LATERAL webhook_watching_v1('link.expired', l.owner, l.owner) AS g (webhook_id)
           JOIN webhook_watches w ON w.webhook_id = g.webhook_id AND w.since < l.expires_at
          WHERE EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
            AND l.expires_at <= clock_timestamp() AND l.deleted_at IS NULL
          ORDER BY l.slot, l.code
    ON CONFLICT (slot, message_id) DO NOTHING;
END $$;

-- A message that asks a receiver for nothing but its answer. `p_data` is what it says.
CREATE FUNCTION webhook_test_v1(
    p_slot smallint, p_webhook_id text, p_message_id text, p_data jsonb, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO webhook_messages (slot, message_id, webhook_id, code, version, kind, at, data, due_at)
         VALUES (p_slot, p_message_id, p_webhook_id, '', 0, 'webhook.test', clock_timestamp(), p_data, clock_timestamp())
    ON CONFLICT DO NOTHING;
END $$;

-- ---- webhooks ---------------------------------------------------------------------------------------------------

-- A row with this secret was made by an earlier try of this call.
CREATE FUNCTION webhook_add_v1(
    p_slot smallint, p_webhook_id text, p_account text, p_url text, p_kinds text[], p_note text, p_secret text,
    p_created_at timestamptz, p_created_by text, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO webhooks (slot, webhook_id, version, account, url, kinds, note, secrets, created_at, created_by)
         VALUES (p_slot, p_webhook_id, 1, p_account, p_url, p_kinds, p_note, ARRAY[p_secret], p_created_at, p_created_by)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (SELECT FROM webhooks w WHERE w.slot = p_slot AND w.webhook_id = p_webhook_id
                                    AND w.secrets = ARRAY[p_secret]) THEN
        outcome := 'taken';
    END IF;
END $$;

-- Changes a webhook that is not deleted; what is null stays. `p_secret` becomes the first secret. `p_disabled_why` '' enables
-- it. A webhook that is disabled already keeps its reason. A delete may be repeated.
CREATE FUNCTION webhook_change_v1(
    p_slot smallint, p_webhook_id text, p_url text, p_kinds text[], p_note text, p_secret text, p_disabled_why text,
    p_delete boolean, OUT outcome text, OUT peer text, OUT epoch bigint, OUT webhook webhooks
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE webhooks w SET
        xid = pg_current_xact_id(),
        version = w.version + 1,
        url = coalesce(p_url, w.url),
        kinds = coalesce(p_kinds, w.kinds),
        note = coalesce(p_note, w.note),
        secrets = CASE WHEN p_secret IS NULL OR p_secret = w.secrets[1] THEN w.secrets
                       ELSE ARRAY[p_secret, w.secrets[1]] END,
        rotated_at = CASE WHEN p_secret IS NULL OR p_secret = w.secrets[1] THEN w.rotated_at ELSE now() END,
        disabled_at = CASE WHEN p_disabled_why IS NULL THEN w.disabled_at
                           WHEN p_disabled_why <> '' THEN coalesce(w.disabled_at, now()) END,
        disabled_why = CASE WHEN p_disabled_why = '' OR w.disabled_at IS NULL THEN coalesce(p_disabled_why, w.disabled_why)
                            ELSE w.disabled_why END,
        deleted_at = CASE WHEN p_delete THEN coalesce(w.deleted_at, now()) END
     WHERE w.slot = p_slot AND w.webhook_id = p_webhook_id AND (w.deleted_at IS NULL OR p_delete) RETURNING w.* INTO webhook;
    IF NOT FOUND THEN outcome := 'missing'; END IF;
END $$;

-- This shard's copy: takes what is newer than what it has, renews the rest, forgets `p_gone`. `p_kinds` are the texts of
-- arrays; those of a disabled webhook are empty.
CREATE FUNCTION webhook_watch_v1(
    p_webhook_ids text[], p_versions bigint[], p_accounts text[], p_kinds text[], p_since timestamptz[], p_gone text[]
) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO webhook_watches AS w (webhook_id, version, account, kinds, since, renewed_at)
         SELECT u.webhook_id, u.version, u.account, u.kinds::text[], u.since, now()
           FROM unnest(p_webhook_ids, p_versions, p_accounts, p_kinds, p_since)
             AS u (webhook_id, version, account, kinds, since)
          ORDER BY u.webhook_id COLLATE "C"
    ON CONFLICT (webhook_id) DO UPDATE SET version = excluded.version, account = excluded.account, kinds = excluded.kinds,
                                           since = excluded.since, renewed_at = excluded.renewed_at
     WHERE excluded.version > w.version
        OR excluded.version = w.version AND w.renewed_at < now() - interval '10 minutes';
    DELETE FROM webhook_watches WHERE webhook_id = ANY (p_gone);
$$;

-- ---- sending ----------------------------------------------------------------------------------------------------

-- Gives messages that are due to a sender, for `p_held_s` seconds: up to `p_limits` of each webhook, the oldest due first,
-- and of each link the first that waits alone.
CREATE FUNCTION webhook_claim_v1(p_holder text, p_webhook_ids text[], p_limits integer[], p_held_s integer)
RETURNS SETOF webhook_messages LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    found_slots smallint[];
    found_ids text[];
BEGIN
    SELECT array_agg(m.slot), array_agg(m.message_id) INTO found_slots, found_ids
      FROM unnest(p_webhook_ids, p_limits) AS u (webhook_id, most)
     CROSS JOIN LATERAL (
        SELECT m.slot, m.message_id FROM webhook_messages m
          JOIN slots s ON s.slot = m.slot AND write_outcome_v1(s.state) = 'ok'
         WHERE m.webhook_id = u.webhook_id AND m.state = 'waiting' AND m.due_at <= clock_timestamp()
           AND NOT EXISTS (SELECT FROM webhook_messages e
                            WHERE e.webhook_id = m.webhook_id AND e.code = m.code AND e.state = 'waiting' AND m.code <> ''
                              AND (e.version, e.at, e.message_id) < (m.version, m.at, m.message_id)
                              AND (e.attempts > 0 OR e.holder <> '' OR e.due_at <= clock_timestamp())
                              AND e.slot = m.slot)
         ORDER BY m.due_at LIMIT u.most) m;
    IF found_ids IS NULL THEN RETURN; END IF;
    PERFORM slots_fence_v1(found_slots);
    RETURN QUERY
        UPDATE webhook_messages m SET xid = pg_current_xact_id(), holder = p_holder,
                                      due_at = clock_timestamp() + make_interval(secs => p_held_s)
          FROM (SELECT m.slot, m.message_id FROM unnest(found_slots, found_ids) AS u (slot, message_id)
                  JOIN slots s ON s.slot = u.slot AND write_outcome_v1(s.state) = 'ok'
                  JOIN webhook_messages m ON m.slot = u.slot AND m.message_id = u.message_id COLLATE "C"
                 WHERE m.state = 'waiting' AND m.due_at <= clock_timestamp()
                   AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
                 ORDER BY m.slot, m.message_id FOR UPDATE OF m SKIP LOCKED) f
         WHERE m.slot = f.slot AND m.message_id = f.message_id
        RETURNING m.*;
END $$;

-- Takes back up to `p_limit` messages that another sender held: it is gone. Returns how many.
CREATE FUNCTION webhook_release_v1(p_holder text, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found_slots smallint[];
    found_ids text[];
    released bigint;
BEGIN
    SELECT array_agg(q.slot), array_agg(q.message_id) INTO found_slots, found_ids FROM (
        SELECT m.slot, m.message_id FROM webhook_messages m
          JOIN slots s ON s.slot = m.slot AND write_outcome_v1(s.state) = 'ok'
         WHERE m.holder <> '' AND m.holder <> p_holder AND m.state = 'waiting' LIMIT p_limit) q;
    PERFORM slots_fence_v1(found_slots);
    UPDATE webhook_messages m SET xid = pg_current_xact_id(), holder = '', due_at = clock_timestamp()
      FROM unnest(found_slots, found_ids) AS u (slot, message_id)
      JOIN slots s ON s.slot = u.slot AND write_outcome_v1(s.state) = 'ok'
     WHERE m.slot = u.slot AND m.message_id = u.message_id COLLATE "C" AND m.state = 'waiting'
       AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time());
    GET DIAGNOSTICS released = ROW_COUNT;
    RETURN released;
END $$;

-- Notes what came of an attempt. A message that waits on is due again in `p_wait_s` seconds.
CREATE FUNCTION webhook_settle_v1(
    p_slot smallint, p_message_id text, p_holder text, p_state text, p_wait_s double precision, p_status integer,
    p_answer text, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE webhook_messages m SET
        xid = pg_current_xact_id(), state = p_state, attempts = m.attempts + 1, holder = '', tried_at = clock_timestamp(),
        due_at = clock_timestamp() + make_interval(secs => p_wait_s), status = p_status, answer = p_answer
     WHERE m.slot = p_slot AND m.message_id = p_message_id AND m.holder = p_holder AND m.state = 'waiting';
END $$;

-- ---- sent again, and deleted ------------------------------------------------------------------------------------

-- Sends a message again that was sent or given up, or now one that waits. 'missing' if the webhook has no such message.
CREATE FUNCTION webhook_replay_v1(
    p_slot smallint, p_message_id text, p_webhook_id text, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE webhook_messages m SET xid = pg_current_xact_id(), state = 'waiting', attempts = 0, due_at = clock_timestamp()
     WHERE m.slot = p_slot AND m.message_id = p_message_id AND m.webhook_id = p_webhook_id AND m.holder = '';
    IF NOT FOUND AND NOT EXISTS (SELECT FROM webhook_messages m WHERE m.slot = p_slot AND m.message_id = p_message_id
                                    AND m.webhook_id = p_webhook_id) THEN
        outcome := 'missing';
    END IF;
END $$;

-- Sends up to `p_limit` messages again that were given up. Returns how many.
CREATE FUNCTION webhook_replay_dead_v1(p_webhook_id text, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
DECLARE
    found_slots smallint[];
    found_ids text[];
    replayed bigint;
BEGIN
    SELECT array_agg(q.slot), array_agg(q.message_id) INTO found_slots, found_ids FROM (
        SELECT m.slot, m.message_id FROM webhook_messages m
          JOIN slots s ON s.slot = m.slot AND write_outcome_v1(s.state) = 'ok'
         WHERE m.webhook_id = p_webhook_id AND m.state = 'dead' LIMIT p_limit) q;
    PERFORM slots_fence_v1(found_slots);
    UPDATE webhook_messages m SET xid = pg_current_xact_id(), state = 'waiting', attempts = 0, due_at = clock_timestamp()
      FROM unnest(found_slots, found_ids) AS u (slot, message_id)
      JOIN slots s ON s.slot = u.slot AND write_outcome_v1(s.state) = 'ok'
     WHERE m.slot = u.slot AND m.message_id = u.message_id COLLATE "C" AND m.state = 'dead'
       AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time());
    GET DIAGNOSTICS replayed = ROW_COUNT;
    RETURN replayed;
END $$;

-- Deletes up to `p_limit` messages, in slots in state 'owned' alone: all of the webhooks `p_gone`, and of the webhooks
-- `p_there` those that do not wait and are older than `p_days`, or are not among the newest `p_kept`; ten times as many of
-- those that were given up. Returns how many.
CREATE FUNCTION webhook_purge_v1(p_there text[], p_gone text[], p_days integer, p_kept integer, p_limit integer)
RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    found_slots smallint[];
    found_ids text[];
    purged bigint;
BEGIN
    SELECT array_agg(q.slot), array_agg(q.message_id) INTO found_slots, found_ids FROM (
        (SELECT m.slot, m.message_id
           FROM unnest(p_there) AS w (webhook_id)
          CROSS JOIN unnest(ARRAY['sent', 'dead'], ARRAY[p_kept, 10 * p_kept]) AS k (state, kept)
          CROSS JOIN LATERAL (
                SELECT greatest(now() - make_interval(days => p_days),
                                (SELECT n.at FROM webhook_messages n WHERE n.webhook_id = w.webhook_id
                                  ORDER BY n.at DESC, n.message_id DESC OFFSET k.kept LIMIT 1)) AS first_at) f
           JOIN webhook_messages m ON m.webhook_id = w.webhook_id AND m.at < f.first_at AND m.state = k.state
           JOIN slots s ON s.slot = m.slot AND s.state = 'owned'
          LIMIT p_limit)
        UNION ALL
        (SELECT m.slot, m.message_id FROM unnest(p_gone) AS w (webhook_id)
           JOIN webhook_messages m ON m.webhook_id = w.webhook_id
           JOIN slots s ON s.slot = m.slot AND s.state = 'owned'
          LIMIT p_limit)) q;
    PERFORM slots_fence_v1(found_slots);
    WITH gone AS (
        DELETE FROM webhook_messages m USING unnest(found_slots, found_ids) AS u (slot, message_id), slots s
         WHERE m.slot = u.slot AND m.message_id = u.message_id COLLATE "C" AND s.slot = m.slot AND s.state = 'owned'
           AND (m.state <> 'waiting' OR m.webhook_id = ANY (p_gone))
        RETURNING 1)
    SELECT count(*) INTO purged FROM gone;
    RETURN purged;
END $$;

-- The service may call webhook_* too.
CREATE OR REPLACE FUNCTION grant_roles_v1() RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = public, pg_temp AS $$
DECLARE
    wanted text;
    fenced regprocedure;
    made regclass;
BEGIN
    FOREACH wanted IN ARRAY '{snapurl_service,snapurl_migrator}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RETURN format('role %s is missing and this user may not create it', wanted);
            END;
        END IF;
    END LOOP;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT USAGE ON SCHEMA public TO snapurl_service, snapurl_migrator;
    FOR fenced IN SELECT oid::regprocedure FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace AND proname ~ '_v[0-9]+$'
                     AND proname <> 'migrator_rights_v1' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', fenced);
        IF fenced::text NOT LIKE 'grant_roles_v1(%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_migrator', fenced);
        END IF;
        IF fenced::text ~ '^(account|link|key|intent|intents|clicks|shard|webhook|read_outcome|write_outcome)_' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_service', fenced);
        END IF;
    END LOOP;
    FOR made IN SELECT t.oid::regclass FROM pg_class t WHERE t.relnamespace = 'public'::regnamespace
                   AND t.relkind = 'r' AND pg_has_role(current_user, t.relowner, 'USAGE') LOOP
        EXECUTE format('GRANT SELECT ON %s TO snapurl_service, snapurl_migrator', made);
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = made AND attname = 'slot' AND NOT attisdropped) THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %s TO snapurl_migrator', made);
        END IF;
    END LOOP;
    GRANT INSERT ON cluster, topology TO snapurl_migrator;
    GRANT UPDATE ON ownership TO snapurl_migrator;
    GRANT INSERT, UPDATE ON migrator, audit TO snapurl_migrator;
    RETURN 'granted';
END $$;
