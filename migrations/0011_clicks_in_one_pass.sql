-- Clicks are applied in one pass. Before, clicks_apply_v2 and the clicks_apply_v1 that it called each asked the
-- fence, made and locked the cursors; and the bound on the values of a kind was looked up for each row, though
-- neither families of browsers nor values that a row is there for can break it.
--
-- The function answers and counts as that of 0009, but that the values which come first when there are too many
-- are those that come first in the alphabet if they have as many clicks.

CREATE OR REPLACE FUNCTION clicks_apply_v2(
    p_stream text, p_slots smallint[], p_entries bigint[], p_codes text[], p_days date[], p_clicks bigint[],
    s_slots smallint[], s_entries bigint[], s_codes text[], s_days date[], s_kinds text[], s_values text[],
    s_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    fences jsonb;
    allowed smallint[];
BEGIN
    SELECT jsonb_agg(to_jsonb(f)), array_agg(f.slot ORDER BY f.slot) FILTER (WHERE f.outcome = 'ok')
      INTO fences, allowed FROM slots_fence_v1(p_slots) f;
    INSERT INTO click_cursor (slot, stream, xid, last_entry)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(allowed) a
          WHERE NOT EXISTS (SELECT FROM click_cursor c WHERE c.slot = a AND c.stream = p_stream)
          ORDER BY a
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM click_cursor c WHERE c.stream = p_stream AND c.slot = ANY (allowed)
      ORDER BY c.slot FOR UPDATE;
    -- Sub-selects of one row, and not EXISTS or a join: the planner cannot know how many rows there are, and reads
    -- whole tables instead of the one row that is asked for.
    WITH fresh AS (
        SELECT r.slot, r.code, r.day, r.kind, r.value, sum(r.clicks) AS clicks
          FROM unnest(s_slots, s_entries, s_codes, s_days, s_kinds, s_values, s_clicks)
            AS r (slot, entry, code, day, kind, value, clicks)
          JOIN click_cursor c ON c.slot = r.slot AND c.stream = p_stream
         WHERE r.slot = ANY (allowed) AND r.entry > c.last_entry
         GROUP BY r.slot, r.code, r.day, r.kind, r.value
    ), known AS (
        SELECT f.*, CASE WHEN f.kind = 'browser' OR f.value IN ('', '*') THEN true
                         ELSE coalesce((SELECT true FROM click_sources k
                                         WHERE k.slot = f.slot AND k.code = f.code AND k.day = f.day
                                           AND k.kind = f.kind AND k.value = f.value), false) END AS is_known
          FROM fresh f
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
    INSERT INTO click_days AS d (slot, code, day, xid, clicks)
         SELECT r.slot, r.code, r.day, pg_current_xact_id(), sum(r.clicks)
           FROM unnest(p_slots, p_entries, p_codes, p_days, p_clicks) AS r (slot, entry, code, day, clicks)
           JOIN click_cursor c ON c.slot = r.slot AND c.stream = p_stream
          WHERE r.slot = ANY (allowed) AND r.entry > c.last_entry
          GROUP BY r.slot, r.code, r.day
          ORDER BY r.slot, r.code COLLATE "C", r.day
    ON CONFLICT (slot, code, day) DO UPDATE SET clicks = d.clicks + excluded.clicks, xid = excluded.xid;
    UPDATE click_cursor c SET last_entry = n.entry, xid = pg_current_xact_id()
      FROM (SELECT r.slot, max(r.entry) AS entry FROM unnest(p_slots, p_entries) AS r (slot, entry)
             GROUP BY r.slot) n
     WHERE c.slot = n.slot AND c.stream = p_stream AND c.slot = ANY (allowed) AND n.entry > c.last_entry;
    RETURN QUERY SELECT f.slot, f.outcome, f.peer, f.epoch
        FROM jsonb_to_recordset(fences) AS f (slot smallint, outcome text, peer text, epoch bigint);
END $$;
