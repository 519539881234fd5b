-- Click counts, exactly once.
--
-- `click_cursor` says up to which entry of which stream the clicks of a slot are in `click_days`. It is
-- written in the same transaction as the counts and moves with the slot, so an entry that is delivered again,
-- to whichever shard, changes nothing.

CREATE TABLE click_days (
    slot   smallint NOT NULL,
    code   text COLLATE "C" NOT NULL,
    day    date     NOT NULL,
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    PRIMARY KEY (slot, code, day)
);

CREATE TABLE click_cursor (
    slot       smallint NOT NULL,
    stream     text COLLATE "C" NOT NULL,
    xid        xid8     NOT NULL DEFAULT pg_current_xact_id(),
    last_entry bigint   NOT NULL,
    PRIMARY KEY (slot, stream)
);

-- The arrays are parallel, one element per (slot, entry, code, day). Rows of slots that this shard may write
-- are applied unless their entry is at or before the slot's cursor; the answer has one row per slot.
-- Two consumers that deliver the same entries at once wait for each other at the cursor rows, which are locked
-- in ascending order before the counts are computed.
CREATE FUNCTION clicks_apply_v1(
    p_stream text, p_slots smallint[], p_entries bigint[], p_codes text[], p_days date[], p_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    allowed smallint[];
    fences jsonb;
BEGIN
    SELECT jsonb_agg(to_jsonb(f)), array_agg(f.slot ORDER BY f.slot) FILTER (WHERE f.outcome = 'ok')
      INTO fences, allowed FROM slots_fence_v1(p_slots) f;
    INSERT INTO click_cursor (slot, stream, xid, last_entry)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(allowed) a ORDER BY a
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM click_cursor c WHERE c.stream = p_stream AND c.slot = ANY (allowed)
      ORDER BY c.slot FOR UPDATE;
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
