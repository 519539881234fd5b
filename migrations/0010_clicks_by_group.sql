-- Click counts with one grouped query over the sources of a call.
--
-- Sources are chosen by strangers: a request may name any referrer. `clicks_apply_v1` looks up each value and counts
-- the rows of its link for each, so 20,000 made-up values take seconds. Here the rows that a link has already are
-- read once per link, day and kind, and the rest is sorting.

-- As `clicks_apply_v1`: same arguments, same answers, same counts of clicks. Of a link's referrers per day the first
-- 100 are kept, those of one call with the most clicks first; clicks of further ones are counted under `*`. Browser
-- families are few, and the values `''` and `*` are none: they are always kept.
--
-- Without sequential scans, since the planner cannot know how many values there are nor, in a session that began with
-- an empty table, how many rows that has.
CREATE FUNCTION clicks_apply_v2(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[],
    s_slots smallint[], s_codes text[], s_days date[], s_kinds text[], s_values text[], s_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint, last_entry bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    moved_on bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1397637443, hashtext(p_stream));
    RETURN QUERY SELECT f.slot, f.outcome, f.peer, f.epoch, NULL::bigint
                   FROM slots_fence_v1(p_slots) f WHERE f.outcome <> 'ok';
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY SELECT n.slot, CASE WHEN c.last_entry >= n.last THEN 'done' ELSE 'behind' END, NULL::text, NULL::bigint,
                        c.last_entry
                   FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
                   JOIN click_cursor c ON c.slot = n.slot AND c.stream = p_stream
                  WHERE c.last_entry >= n.first;
    IF FOUND THEN RETURN; END IF;
    INSERT INTO click_cursor (slot, stream, xid, last_entry)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(p_slots) a
          WHERE NOT EXISTS (SELECT FROM click_cursor c WHERE c.slot = a AND c.stream = p_stream)
          ORDER BY a
    ON CONFLICT DO NOTHING;
    UPDATE click_cursor c SET last_entry = n.last, xid = pg_current_xact_id()
      FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
     WHERE c.slot = n.slot AND c.stream = p_stream AND c.last_entry < n.first;
    GET DIAGNOSTICS moved_on = ROW_COUNT;
    IF moved_on <> cardinality(p_slots) THEN
        RAISE EXCEPTION 'another consumer has counted some of these clicks' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO click_days AS d (slot, code, day, xid, clicks)
         SELECT r.slot, r.code, r.day, pg_current_xact_id(), r.clicks
           FROM unnest(c_slots, c_codes, c_days, c_clicks) AS r (slot, code, day, clicks)
    ON CONFLICT (slot, code, day) DO UPDATE SET clicks = d.clicks + excluded.clicks, xid = excluded.xid;
    IF cardinality(s_slots) = 0 THEN RETURN; END IF;
    WITH given AS MATERIALIZED (
        SELECT f.slot, f.code COLLATE "C" AS code, f.day, f.kind COLLATE "C" AS kind, f.value COLLATE "C" AS value,
               f.clicks
          FROM unnest(s_slots, s_codes, s_days, s_kinds, s_values, s_clicks)
            AS f (slot, code, day, kind, value, clicks)
    ), all_values AS (
        SELECT g.slot, g.code, g.day, g.kind, g.value, g.clicks, g.kind = 'browser' OR g.value IN ('', '*') AS is_kept
          FROM given g
        UNION ALL
        -- The limit keeps this a look-up per link. There are at most 102 rows.
        SELECT q.slot, q.code, q.day, q.kind, k.value, 0, true
          FROM (SELECT DISTINCT g.slot, g.code, g.day, g.kind FROM given g WHERE g.kind <> 'browser') q
         CROSS JOIN LATERAL (SELECT s.value FROM click_sources s
                              WHERE s.slot = q.slot AND s.code = q.code AND s.day = q.day AND s.kind = q.kind
                              LIMIT 1000) k
    ), summed AS (
        SELECT a.slot, a.code, a.day, a.kind, a.value, sum(a.clicks) AS clicks, bool_or(a.is_kept) AS is_kept
          FROM all_values a
         GROUP BY a.slot, a.code, a.day, a.kind, a.value
    ), placed AS (
        SELECT s.*, row_number() OVER (PARTITION BY s.slot, s.code, s.day, s.kind
                                           ORDER BY s.value IN ('', '*'), s.is_kept DESC, s.clicks DESC, s.value) AS place
          FROM summed s
    )
    INSERT INTO click_sources AS s (slot, code, day, kind, value, xid, clicks)
         SELECT p.slot, p.code, p.day, p.kind, p.stored, pg_current_xact_id(), sum(p.clicks)
           FROM (SELECT p.*, CASE WHEN p.is_kept OR p.place <= 100 THEN p.value ELSE '*' END AS stored FROM placed p) p
          WHERE p.clicks > 0
          GROUP BY p.slot, p.code, p.day, p.kind, p.stored
          ORDER BY p.slot, p.code, p.day, p.kind, p.stored
    ON CONFLICT (slot, code, day, kind, value) DO UPDATE SET clicks = s.clicks + excluded.clicks, xid = excluded.xid;
END $$;
