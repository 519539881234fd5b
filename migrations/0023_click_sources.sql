-- Break-downs of clicks: one row per link and day with all that is told of them, and the same per domain, account, tag.
--
-- What is told of clicks is a JSON object {kind: {value: clicks}}, for example {"country": {"DE": 2}, "hour": {"19": 2}}.
-- Of each kind the clicks of all values are at most those of the row: the rest is not told. `hour` and `bot_hour` are the
-- UTC hours of all clicks and of those of bots.
--
-- A count appends its object to `unmerged`, a list without brackets. That costs little: the row is written anyway, and
-- its log has only what is new. When the list is long, the count that makes it so merges it into `sources`. So a
-- merge, whose time is that of its values, is paid by as many bytes that came in before it: whatever values strangers
-- make up, the time of a call is bounded by its size.

-- A move that copies slots now does not know the table.
LOCK TABLE slots IN SHARE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM slots WHERE state NOT IN ('owned', 'released')) THEN
        RAISE EXCEPTION 'slots are in hand-off: run `snapurl-reshard pause`, wait until `status` shows none, migrate again';
    END IF;
END $$;

-- Nobody counts clicks until this transaction ends. A call that has begun and waits here would go on as the function
-- was when it began. It fails because this column has another name, and its caller repeats it.
ALTER TABLE click_cursor RENAME COLUMN counted_to TO applied_to;
DROP FUNCTION clicks_apply_v2;  -- no released program calls it

-- How many values of a kind a row keeps. Clicks of further ones are under `*`.
CREATE FUNCTION clicks_values_max_v1(p_kind text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_kind WHEN 'referrer' THEN 100 WHEN 'country' THEN 250 WHEN 'city' THEN 50 WHEN 'device' THEN 6
                       WHEN 'os' THEN 20 WHEN 'browser' THEN 20 WHEN 'language' THEN 30 WHEN 'utm_source' THEN 50
                       WHEN 'utm_medium' THEN 50 WHEN 'utm_campaign' THEN 50 WHEN 'channel' THEN 2 WHEN 'bot' THEN 30
                       WHEN 'hour' THEN 24 WHEN 'bot_hour' THEN 24 ELSE 0 END
$$;

-- Adds the objects of the list `p_unmerged` to `p_sources`. Beyond the bound of a kind the values that are there stay,
-- then those with the most clicks.
CREATE FUNCTION clicks_merge_v1(p_sources jsonb, p_unmerged text) RETURNS jsonb LANGUAGE sql IMMUTABLE
SET search_path = public, pg_temp AS $$
    WITH given AS (
        SELECT k.key AS kind, v.key AS value, v.value::bigint AS clicks, true AS is_known
          FROM jsonb_each(p_sources) k, jsonb_each(k.value) v
        UNION ALL
        SELECT k.key, v.key, v.value::bigint, false
          FROM jsonb_array_elements(('[' || p_unmerged || ']')::jsonb) e, jsonb_each(e.value) k, jsonb_each(k.value) v
    ), summed AS (
        SELECT kind, value, sum(clicks) AS clicks, bool_or(is_known) AS is_known FROM given GROUP BY kind, value
    ), placed AS (
        SELECT s.*, row_number() OVER (PARTITION BY kind ORDER BY value = '*', is_known DESC, clicks DESC, value) AS place
          FROM summed s
    ), kept AS (
        SELECT kind, CASE WHEN place <= clicks_values_max_v1(kind) THEN value ELSE '*' END AS value, sum(clicks) AS clicks
          FROM placed GROUP BY 1, 2
    )
    SELECT jsonb_object_agg(kind, by_value)
      FROM (SELECT kind, jsonb_object_agg(value, clicks) AS by_value FROM kept GROUP BY kind) k
$$;

-- What a row tells of its clicks, of the kinds that are asked for. A value can be in several rows of the answer.
CREATE FUNCTION clicks_values_v1(p_sources jsonb, p_unmerged text, p_kinds text[])
RETURNS TABLE (kind text, value text, clicks bigint) LANGUAGE sql IMMUTABLE AS $$
    SELECT k.kind, v.key, v.value::bigint
      FROM (SELECT p_sources UNION ALL SELECT e.value FROM jsonb_array_elements(('[' || p_unmerged || ']')::jsonb) e)
               AS o (sources), unnest(p_kinds) AS k (kind), jsonb_each(o.sources -> k.kind) v
$$;

-- Whether a list with one more object is too long to wait. The longer the merged object, the longer the list may be.
CREATE FUNCTION clicks_is_long_v1(p_sources jsonb, p_unmerged text, p_more text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT coalesce(octet_length(p_unmerged), 0) + octet_length(p_more) > greatest(1500, pg_column_size(p_sources) / 4)
$$;

-- Every count is an update, so pages have room for the next version of a row.
ALTER TABLE click_days
    ADD COLUMN bots bigint NOT NULL DEFAULT 0,
    ADD COLUMN visitors bigint NOT NULL DEFAULT 0,
    ADD COLUMN sources jsonb,
    ADD COLUMN unmerged text,
    ADD CONSTRAINT click_days_bots_check CHECK (bots BETWEEN 0 AND clicks),
    ALTER COLUMN unmerged SET STORAGE MAIN,
    SET (fillfactor = 80);
ALTER TABLE click_totals
    ADD COLUMN bots bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT click_totals_bots_check CHECK (bots BETWEEN 0 AND clicks);
UPDATE click_days d SET xid = pg_current_xact_id(), sources = s.sources
  FROM (SELECT slot, code, day, jsonb_object_agg(kind, by_value) AS sources
          FROM (SELECT slot, code, day, kind, jsonb_object_agg(value, clicks) AS by_value
                  FROM click_sources WHERE value <> '' GROUP BY slot, code, day, kind) k
         GROUP BY slot, code, day) s
 WHERE d.slot = s.slot AND d.code = s.code AND d.day = s.day;
DROP TABLE click_sources;

-- The clicks of all links of a domain, an account or a tag, by day. All links together are all domains together.
--
-- Clicks are counted under what their link has when they are counted, and stay there. A call counts them in one slot,
-- its shard's lowest one, so that there are few rows to sum up: one per shard, and one more each time that this slot
-- moves. They move with their slot as all rows do, so that the sum over all slots is exact at any time. Tags of links that
-- belong to nobody are not counted, since strangers choose them.
CREATE TABLE click_groups (
    slot     smallint NOT NULL,
    scope    text COLLATE "C" NOT NULL CHECK (scope IN ('account', 'account_tag', 'domain', 'tag')),
    key      text COLLATE "C" NOT NULL,
    day      date     NOT NULL,
    xid      xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks   bigint   NOT NULL CHECK (clicks > 0),
    bots     bigint   NOT NULL DEFAULT 0 CHECK (bots BETWEEN 0 AND clicks),
    sources  jsonb,
    unmerged text,
    PRIMARY KEY (slot, scope, key, day)
) WITH (fillfactor = 80);
ALTER TABLE click_groups ALTER COLUMN unmerged SET STORAGE MAIN;
CREATE INDEX click_groups_by_key ON click_groups (scope, key, day);

-- What clicks on a link count for: its domain, its account, its tags, and these among the links of its account.
CREATE FUNCTION clicks_groups_v1(p_domain text, p_owner text, p_tags text[])
RETURNS TABLE (scope text, key text) LANGUAGE sql IMMUTABLE AS $$
    SELECT 'domain', p_domain
     UNION ALL SELECT 'account', p_owner WHERE p_owner <> ''
     UNION ALL SELECT 'tag', tag FROM unnest(p_tags) AS tag WHERE p_owner <> ''
     UNION ALL SELECT 'account_tag', p_owner || '/' || tag FROM unnest(p_tags) AS tag WHERE p_owner <> ''
$$;

-- What was counted before. Of links and days, not of released slots: those are another shard's.
WITH linked AS (
    SELECT d.day, d.clicks, d.sources, CASE WHEN strpos(d.code, '/') > 0 THEN split_part(d.code, '/', 1) ELSE '' END AS domain,
           l.owner, l.tags
      FROM click_days d JOIN slots s ON s.slot = d.slot AND s.state = 'owned'
      LEFT JOIN links l ON l.slot = d.slot AND l.code = d.code
), grouped AS (
    SELECT g.scope, g.key, l.day, l.clicks, l.sources
      FROM linked l CROSS JOIN LATERAL clicks_groups_v1(l.domain, l.owner, l.tags) g
), told AS (
    SELECT scope, key, day, clicks_merge_v1(jsonb_object_agg(kind, by_value), '') AS sources
      FROM (SELECT scope, key, day, kind, jsonb_object_agg(value, clicks) AS by_value
              FROM (SELECT g.scope, g.key, g.day, t.kind, t.value, sum(t.clicks) AS clicks
                      FROM grouped g, clicks_values_v1(g.sources, NULL, '{browser,referrer}') t GROUP BY 1, 2, 3, 4, 5) v
             GROUP BY 1, 2, 3, 4) k
     GROUP BY 1, 2, 3
)
INSERT INTO click_groups (slot, scope, key, day, clicks, sources)
     SELECT (SELECT min(slot) FROM slots WHERE state = 'owned'), c.scope, c.key, c.day, c.clicks, t.sources
       FROM (SELECT scope, key, day, sum(clicks) AS clicks FROM grouped GROUP BY 1, 2, 3) c
       LEFT JOIN told t USING (scope, key, day);

-- Counts clicks: one row per link and day, summed over all entries of the stream that the call covers.
--
-- `p_firsts` and `p_lasts` are the first and last entry of each slot's sum. A sum is counted whole or not at all. So
-- the function either counts everything and returns no row, or counts nothing and returns the slots that prevent it.
-- The caller then repeats the call without these slots, or with sums of what is new to them:
--   moved, busy    the fence's outcome
--   done           the slot's cursor is at or after the last entry: all of it is counted already
--   behind         the cursor is in between: entries after `last_entry` are new
-- Slots are distinct and ascending; the other arrays are in the order of their tables' keys. `c_sources` has an object or
-- null per row, of each kind at most as many values as a row keeps. `c_visitors` replaces lower estimates.
--
-- Calls of a shard take turns, so that between a look and an insert nobody else inserts. The update of the cursors
-- checks this again: if a writer without the lock has moved a cursor meanwhile, the call fails and rolls back.
--
-- If a few of the rows show that most are there already, it updates what is there and then inserts the rest: an upsert
-- locks each row before it updates it, and logs both. Without sequential scans, hash and merge joins: the planner
-- cannot know how many rows a table has in a session that began with an empty one.
CREATE FUNCTION clicks_apply_v3(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[], c_bots bigint[], c_visitors bigint[],
    c_sources text[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint, last_entry bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    updated bigint;
    sampled bigint := 1 + cardinality(c_slots) / 16;
    are_known boolean;
    are_totals_known boolean;
    are_prevented boolean := false;
    home smallint;
BEGIN
    PERFORM pg_advisory_xact_lock(1397637443, 0);
    SELECT s.slot INTO home FROM slots s WHERE s.state = 'owned' ORDER BY s.slot LIMIT 1;
    FOR slot, outcome, peer, epoch IN
        SELECT f.slot, f.outcome, f.peer, f.epoch FROM slots_fence_v1(p_slots || home) f WHERE f.outcome <> 'ok'
    LOOP
        IF slot = ANY (p_slots) THEN
            are_prevented := true;
            RETURN NEXT;
        ELSE
            home := p_slots[1];
        END IF;
    END LOOP;
    IF are_prevented THEN RETURN; END IF;
    RETURN QUERY SELECT n.slot, CASE WHEN c.applied_to >= n.last THEN 'done' ELSE 'behind' END, NULL::text, NULL::bigint,
                        c.applied_to
                   FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
                   JOIN click_cursor c ON c.slot = n.slot AND c.stream = p_stream
                  WHERE c.applied_to >= n.first;
    IF FOUND THEN RETURN; END IF;
    INSERT INTO click_cursor (slot, stream, xid, applied_to)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(p_slots) a
          WHERE NOT EXISTS (SELECT FROM click_cursor c WHERE c.slot = a AND c.stream = p_stream)
          ORDER BY a
    ON CONFLICT DO NOTHING;
    UPDATE click_cursor c SET applied_to = n.last, xid = pg_current_xact_id()
      FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
     WHERE c.slot = n.slot AND c.stream = p_stream AND c.applied_to < n.first;
    GET DIAGNOSTICS updated = ROW_COUNT;
    IF updated <> cardinality(p_slots) THEN
        RAISE EXCEPTION 'another consumer has counted some of these clicks' USING ERRCODE = 'serialization_failure';
    END IF;

    SELECT 2 * count(d.day) > count(*) INTO are_known
      FROM unnest(c_slots, c_codes, c_days) WITH ORDINALITY AS r (slot, code, day, place)
      LEFT JOIN click_days d ON d.slot = r.slot AND d.code = r.code AND d.day = r.day
     WHERE r.place % sampled = 0;
    updated := 0;
    IF are_known THEN
        UPDATE click_days d SET
            xid = pg_current_xact_id(), clicks = d.clicks + r.clicks, bots = d.bots + r.bots,
            visitors = greatest(d.visitors, r.visitors),
            sources = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, r.sources)
                           THEN clicks_merge_v1(d.sources, concat_ws(',', d.unmerged, r.sources)) ELSE d.sources END,
            unmerged = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, r.sources) THEN NULL
                            ELSE nullif(concat_ws(',', d.unmerged, r.sources), '') END
          FROM unnest(c_slots, c_codes, c_days, c_clicks, c_bots, c_visitors, c_sources)
            AS r (slot, code, day, clicks, bots, visitors, sources)
         WHERE d.slot = r.slot AND d.code = r.code AND d.day = r.day;
        GET DIAGNOSTICS updated = ROW_COUNT;
    END IF;
    IF updated < cardinality(c_slots) THEN
        INSERT INTO click_days AS d (slot, code, day, xid, clicks, bots, visitors, unmerged)
             SELECT r.slot, r.code, r.day, pg_current_xact_id(), r.clicks, r.bots, r.visitors, r.sources
               FROM unnest(c_slots, c_codes, c_days, c_clicks, c_bots, c_visitors, c_sources)
                 AS r (slot, code, day, clicks, bots, visitors, sources)
              WHERE NOT are_known OR (SELECT d.day FROM click_days d
                                       WHERE d.slot = r.slot AND d.code = r.code AND d.day = r.day) IS NULL
        ON CONFLICT (slot, code, day) DO UPDATE SET
            xid = excluded.xid, clicks = d.clicks + excluded.clicks, bots = d.bots + excluded.bots,
            visitors = greatest(d.visitors, excluded.visitors),
            sources = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, excluded.unmerged)
                           THEN clicks_merge_v1(d.sources, concat_ws(',', d.unmerged, excluded.unmerged)) ELSE d.sources END,
            unmerged = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, excluded.unmerged) THEN NULL
                            ELSE nullif(concat_ws(',', d.unmerged, excluded.unmerged), '') END;
    END IF;

    IF NOT are_known THEN  -- perhaps it is just a new day
        SELECT 2 * count(t.slot) > count(*) INTO are_totals_known
          FROM unnest(c_slots, c_codes) WITH ORDINALITY AS r (slot, code, place)
          LEFT JOIN click_totals t ON t.slot = r.slot AND t.code = r.code
         WHERE r.place % sampled = 0;
    END IF;
    updated := 0;
    IF are_known OR are_totals_known THEN
        UPDATE click_totals t SET clicks = t.clicks + r.clicks, bots = t.bots + r.bots, xid = pg_current_xact_id()
          FROM (SELECT slot, code COLLATE "C" AS code, sum(clicks) AS clicks, sum(bots) AS bots
                  FROM unnest(c_slots, c_codes, c_clicks, c_bots) AS c (slot, code, clicks, bots)
                 GROUP BY slot, code COLLATE "C" ORDER BY slot, code COLLATE "C") r
         WHERE t.slot = r.slot AND t.code = r.code;
        GET DIAGNOSTICS updated = ROW_COUNT;
    END IF;
    IF updated < cardinality(c_slots) THEN
        INSERT INTO click_totals AS t (slot, code, xid, clicks, bots)
             SELECT r.slot, r.code COLLATE "C", pg_current_xact_id(), sum(r.clicks), sum(r.bots)
               FROM unnest(c_slots, c_codes, c_clicks, c_bots) AS r (slot, code, clicks, bots)
              WHERE updated = 0 OR (SELECT t.slot FROM click_totals t WHERE t.slot = r.slot AND t.code = r.code) IS NULL
              GROUP BY r.slot, r.code COLLATE "C" ORDER BY r.slot, r.code COLLATE "C"
        ON CONFLICT (slot, code) DO UPDATE SET
            clicks = t.clicks + excluded.clicks, bots = t.bots + excluded.bots, xid = excluded.xid;
    END IF;

    -- First by what links have in common, so that a value is read once and not once per group.
    WITH linked AS MATERIALIZED (
        SELECT r.day, r.clicks, r.bots, r.sources::jsonb AS sources,
               CASE WHEN strpos(r.code, '/') > 0 THEN split_part(r.code, '/', 1) ELSE '' END AS domain, l.owner, l.tags
          FROM unnest(c_slots, c_codes, c_days, c_clicks, c_bots, c_sources) AS r (slot, code, day, clicks, bots, sources)
          LEFT JOIN links l ON l.slot = r.slot AND l.code = r.code
    ), counted AS (
        SELECT g.scope COLLATE "C" AS scope, g.key COLLATE "C" AS key, a.day, sum(a.clicks) AS clicks, sum(a.bots) AS bots
          FROM (SELECT day, domain, owner, tags, sum(clicks) AS clicks, sum(bots) AS bots
                  FROM linked GROUP BY day, domain, owner, tags) a
         CROSS JOIN LATERAL clicks_groups_v1(a.domain, a.owner, a.tags) g
         GROUP BY 1, 2, 3
    ), told AS (
        SELECT g.scope COLLATE "C" AS scope, g.key COLLATE "C" AS key, a.day, a.kind, a.value, sum(a.clicks) AS clicks
          FROM (SELECT l.day, l.domain, l.owner, l.tags, k.key AS kind, v.key AS value, sum(v.value::bigint) AS clicks
                  FROM linked l, jsonb_each(l.sources) k, jsonb_each(k.value) v
                 GROUP BY 1, 2, 3, 4, 5, 6) a
         CROSS JOIN LATERAL clicks_groups_v1(a.domain, a.owner, a.tags) g
         GROUP BY 1, 2, 3, 4, 5
    ), both_of_them AS (
        SELECT scope, key, day, clicks, bots, NULL AS kind, NULL::jsonb AS by_value FROM counted
        UNION ALL
        SELECT scope, key, day, 0, 0, kind, jsonb_object_agg(value, clicks) FROM told GROUP BY scope, key, day, kind
    )
    INSERT INTO click_groups AS d (slot, scope, key, day, xid, clicks, bots, unmerged)
         SELECT home, b.scope, b.key, b.day, pg_current_xact_id(), sum(b.clicks), sum(b.bots),
                (jsonb_object_agg(b.kind, b.by_value) FILTER (WHERE b.kind IS NOT NULL))::text
           FROM both_of_them b GROUP BY b.scope, b.key, b.day ORDER BY b.scope, b.key, b.day
    ON CONFLICT (slot, scope, key, day) DO UPDATE SET
        xid = excluded.xid, clicks = d.clicks + excluded.clicks, bots = d.bots + excluded.bots,
        sources = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, excluded.unmerged)
                       THEN clicks_merge_v1(d.sources, concat_ws(',', d.unmerged, excluded.unmerged)) ELSE d.sources END,
        unmerged = CASE WHEN clicks_is_long_v1(d.sources, d.unmerged, excluded.unmerged) THEN NULL
                        ELSE nullif(concat_ws(',', d.unmerged, excluded.unmerged), '') END;
END $$;
