-- The sums of clicks by domain, account and tag come from the consumer, which adds them up in a fraction of the time.

DROP FUNCTION clicks_apply_v3;  -- no released program calls it
DROP FUNCTION clicks_groups_v1;

-- The accounts and tags of links that have an account, with their places in the arrays. As in `clicks_apply_v4`, the
-- planner must not scan the table: it cannot know how large it is.
CREATE FUNCTION clicks_owners_v1(p_slots smallint[], p_codes text[])
RETURNS TABLE (place bigint, owner text, tags text[]) LANGUAGE sql STABLE
SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT n.place, l.owner, l.tags
      FROM unnest(p_slots, p_codes) WITH ORDINALITY AS n (slot, code, place)
      JOIN links l ON l.slot = n.slot AND l.code = n.code
     WHERE l.owner <> ''
$$;

-- What a row has after one more object: `p_more` waits in the list, or is merged with it if that is too long to wait.
CREATE FUNCTION clicks_added_v1(p_sources jsonb, p_unmerged text, p_more text)
RETURNS TABLE (sources jsonb, unmerged text) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN l.is_long THEN clicks_merge_v1(p_sources, l.list) ELSE p_sources END,
           CASE WHEN l.is_long THEN NULL ELSE l.list END
      FROM (SELECT nullif(concat_ws(',', p_unmerged, p_more), '') AS list,
                   coalesce(clicks_is_long_v1(p_sources, p_unmerged, p_more), false) AS is_long) l
$$;

-- Counts clicks: one row per link and day, summed over all entries of the stream that the call covers.
--
-- `p_firsts` and `p_lasts` are the first and last entry of each slot's sum. A sum is counted whole or not at all. So
-- the function either counts everything and returns no row, or counts nothing and returns the slots that prevent it.
-- The caller then repeats the call without these slots, or with sums of what is new to them:
--   moved, busy    the fence's outcome
--   done           the slot's cursor is at or after the last entry: all of it is counted already
--   behind         the cursor is in between: entries after `last_entry` are new
-- Slots are distinct and ascending; the other arrays are in the order of their tables' keys. `c_sources` has an object or
-- null per row, of each kind at most as many values as a row keeps. `c_visitors` replaces lower estimates. `g_…` are the
-- same clicks by group: the caller has looked up what their links have in common.
--
-- Calls of a shard take turns, so that between a look and an insert nobody else inserts. The update of the cursors
-- checks this again: if a writer without the lock has moved a cursor meanwhile, the call fails and rolls back.
--
-- If a few of the rows show that most are there already, it updates what is there and then inserts the rest: an upsert
-- locks each row before it updates it, and logs both. Without sequential scans, hash and merge joins: the planner
-- cannot know how many rows a table has in a session that began with an empty one.
CREATE FUNCTION clicks_apply_v4(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[], c_bots bigint[], c_sources text[],
    c_visitors bigint[],
    g_scopes text[], g_keys text[], g_days date[], g_clicks bigint[], g_bots bigint[], g_sources text[]
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
            (sources, unmerged) = (SELECT a.sources, a.unmerged FROM clicks_added_v1(d.sources, d.unmerged, r.sources) a)
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
            (sources, unmerged) = (SELECT a.sources, a.unmerged
                                     FROM clicks_added_v1(d.sources, d.unmerged, excluded.unmerged) a);
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

    INSERT INTO click_groups AS d (slot, scope, key, day, xid, clicks, bots, unmerged)
         SELECT home, g.scope, g.key, g.day, pg_current_xact_id(), g.clicks, g.bots, g.sources
           FROM unnest(g_scopes, g_keys, g_days, g_clicks, g_bots, g_sources)
             AS g (scope, key, day, clicks, bots, sources)
    ON CONFLICT (slot, scope, key, day) DO UPDATE SET
        xid = excluded.xid, clicks = d.clicks + excluded.clicks, bots = d.bots + excluded.bots,
        (sources, unmerged) = (SELECT a.sources, a.unmerged
                                 FROM clicks_added_v1(d.sources, d.unmerged, excluded.unmerged) a);
END $$;
