-- Click counts, exactly once, and where clicks come from.
--
-- `click_cursor` records up to which entry of which stream the clicks of a slot are counted. It is written in the
-- transaction that counts them and moves with the slot, so delivering an entry again, to whichever shard, changes
-- nothing.

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

-- Clicks per day and link, by referring host and by browser family. A click is in `click_days` and once under each
-- kind here, unless its worker had no space left for its source. A link has at most 100 values of a kind per day;
-- clicks of further values are counted under `*`, so that made-up referrers cannot grow the table.
CREATE TABLE click_sources (
    slot   smallint NOT NULL,
    code   text COLLATE "C" NOT NULL,
    day    date     NOT NULL,
    kind   text COLLATE "C" NOT NULL CHECK (kind IN ('browser', 'referrer')),
    value  text COLLATE "C" NOT NULL CHECK (length(value) <= 255),
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    PRIMARY KEY (slot, code, day, kind, value)
);

-- Counts clicks: one row per link and day, summed over all entries of the stream that the call covers.
--
-- `p_firsts` and `p_lasts` are the first and last entry of each slot's sum. A sum is counted whole or not at all. So
-- the function either counts everything and returns no row, or counts nothing and returns the slots that prevent it.
-- The caller then repeats the call without these slots, or with sums of what is new to them:
--   moved, busy    the fence's outcome
--   done           the slot's cursor is at or after the last entry: all of it is counted already
--   behind         the cursor is in between: entries after `last_entry` are new
-- Slots are distinct and ascending; the other arrays are in the order of their tables' keys.
--
-- A lock per stream serialises its consumers. The update of the cursors checks this again: if a writer without the
-- lock has moved a cursor meanwhile, it finds too few rows, and the call fails and rolls back.
CREATE FUNCTION clicks_apply_v1(
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
        RAISE EXCEPTION 'another consumer has counted some of these clicks' USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO click_days AS d (slot, code, day, xid, clicks)
         SELECT r.slot, r.code, r.day, pg_current_xact_id(), r.clicks
           FROM unnest(c_slots, c_codes, c_days, c_clicks) AS r (slot, code, day, clicks)
    ON CONFLICT (slot, code, day) DO UPDATE SET clicks = d.clicks + excluded.clicks, xid = excluded.xid;
    IF cardinality(s_slots) = 0 THEN RETURN; END IF;
    -- Scalar sub-selects, not EXISTS or a join: the planner cannot know the number of rows, and would scan the table
    -- instead of looking each row up by its key.
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
