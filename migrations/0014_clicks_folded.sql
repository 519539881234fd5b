-- Clicks are applied folded: one row per link and day for all entries that a call brings, instead of one per entry.
--
-- `p_firsts` and `p_lasts` say of each slot from which to which entry its clicks are summed up. Such a sum can only be
-- taken as a whole, so the function either applies everything or says to which slots it cannot be applied as it is,
-- and then it has done nothing: call again without these slots, or with what is new to them.
--   moved, busy    as the fence says it
--   done           the slot's cursor is at the last entry or after it: everything is counted already
--   behind         the cursor is in between: what comes after `last_entry` is new
-- An empty answer is success. Slots are distinct and ascending, the other arrays in the order of their tables' keys.
--
-- Consumers of one stream wait for each other at a lock of the stream. One from before this function does not take it
-- and locks cursors instead: if it gets in between, the update of the cursors finds too few, and all is rolled back.
CREATE FUNCTION clicks_apply_v3(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[],
    s_slots smallint[], s_codes text[], s_days date[], s_kinds text[], s_values text[], s_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint, last_entry bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
        RAISE EXCEPTION 'another consumer has counted some of this' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO click_days AS d (slot, code, day, xid, clicks)
         SELECT r.slot, r.code, r.day, pg_current_xact_id(), r.clicks
           FROM unnest(c_slots, c_codes, c_days, c_clicks) AS r (slot, code, day, clicks)
    ON CONFLICT (slot, code, day) DO UPDATE SET clicks = d.clicks + excluded.clicks, xid = excluded.xid;
    IF cardinality(s_slots) = 0 THEN RETURN; END IF;
    -- Sub-selects of one row, and not EXISTS or a join: the planner cannot know how many rows there are, and reads
    -- whole tables instead of the one row that is asked for.
    WITH known AS (
        SELECT f.*, CASE WHEN f.kind = 'browser' OR f.value IN ('', '*') THEN true
                         ELSE coalesce((SELECT true FROM click_sources k
                                         WHERE k.slot = f.slot AND k.code = f.code AND k.day = f.day
                                           AND k.kind = f.kind AND k.value = f.value), false) END AS is_known
          FROM unnest(s_slots, s_codes, s_days, s_kinds, s_values, s_clicks)
            AS f (slot, code, day, kind, value, clicks)
    ), placed AS (
        SELECT k.*, CASE WHEN k.is_known THEN 0
                         ELSE row_number() OVER (PARTITION BY k.slot, k.code, k.day, k.kind, k.is_known
                                                     ORDER BY k.clicks DESC, k.value)
                            + (SELECT count(*) FROM click_sources n
                                WHERE n.slot = k.slot AND n.code = k.code AND n.day = k.day AND n.kind = k.kind)
                     END AS place
          FROM known k
    )
    INSERT INTO click_sources AS s (slot, code, day, kind, value, xid, clicks)
         SELECT p.slot, p.code, p.day, p.kind, p.kept, pg_current_xact_id(), sum(p.clicks)
           FROM (SELECT p.*, CASE WHEN p.place <= 100 THEN p.value ELSE '*' END AS kept FROM placed p) p
          GROUP BY p.slot, p.code, p.day, p.kind, p.kept
          ORDER BY p.slot, p.code COLLATE "C", p.day, p.kind COLLATE "C", p.kept COLLATE "C"
    ON CONFLICT (slot, code, day, kind, value) DO UPDATE SET clicks = s.clicks + excluded.clicks, xid = excluded.xid;
END $$;
