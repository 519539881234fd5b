-- Days of imported visits: what another service had counted for a link on a UTC day, apart from what is counted here.
--
-- Nothing is ever added to such a row: an import says what there was, and a repeat says the same. They are in no total and
-- in no sum of a group, and are not folded.

-- A move that copies slots now does not know the table.
LOCK TABLE slots IN SHARE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM slots WHERE state NOT IN ('owned', 'released')) THEN
        RAISE EXCEPTION 'slots are in hand-off: run `snapurl-reshard pause`, wait until `status` shows none, migrate again';
    END IF;
END $$;

CREATE TABLE imported_days (
    slot   smallint NOT NULL,
    code   text COLLATE "C" NOT NULL,
    day    date     NOT NULL,
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    bots   bigint   NOT NULL CHECK (bots BETWEEN 0 AND clicks),
    PRIMARY KEY (slot, code, day)
);

-- Writes days of imported visits, in place of what is there of the same days. No day comes twice. Returns a row for all
-- (place null), and one for each day that was not written: `moved` and `busy` as the fence says, `missing` without a link.
CREATE FUNCTION link_import_days_v1(
    p_slots smallint[], p_codes text[], p_days date[], p_clicks bigint[], p_bots bigint[]
) RETURNS TABLE (place integer, outcome text, peer text, epoch bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET plan_cache_mode = force_generic_plan  -- look up each link by its key, however many there are
AS $$
#variable_conflict use_column
DECLARE
    outcomes jsonb;
BEGIN
    SELECT jsonb_object_agg(f.slot, to_jsonb(f)) FILTER (WHERE f.outcome <> 'ok') INTO outcomes
      FROM slots_fence_v1(p_slots) f;
    INSERT INTO imported_days AS d (slot, code, day, xid, clicks, bots)
         SELECT i.slot, i.code, i.day, pg_current_xact_id(), i.clicks, i.bots
           FROM unnest(p_slots, p_codes, p_days, p_clicks, p_bots) AS i (slot, code, day, clicks, bots)
           JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C"
          WHERE outcomes IS NULL OR NOT outcomes ? i.slot::text
          ORDER BY i.slot, i.code COLLATE "C", i.day
    ON CONFLICT (slot, code, day) DO UPDATE SET clicks = excluded.clicks, bots = excluded.bots, xid = excluded.xid
     WHERE (d.clicks, d.bots) <> (excluded.clicks, excluded.bots);
    outcome := 'ok';
    RETURN NEXT;
    RETURN QUERY
        SELECT i.place::integer - 1, coalesce(o.fence ->> 'outcome', 'missing'), o.fence ->> 'peer',
               (o.fence ->> 'epoch')::bigint
          FROM unnest(p_slots, p_codes) WITH ORDINALITY AS i (slot, code, place)
          CROSS JOIN LATERAL (SELECT outcomes -> i.slot::text AS fence) o
          LEFT JOIN links l ON l.slot = i.slot AND l.code = i.code COLLATE "C"
         WHERE o.fence IS NOT NULL OR l.slot IS NULL;
END $$;
