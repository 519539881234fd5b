-- Where clicks come from: per day and link, by the host that referred and by browser family.
--
-- A click is in `click_days` and once under each kind here, unless its worker had no room left for its source. A
-- link has at most 100 values of a kind on a day; clicks of further ones are under `*`, so that nobody can make the
-- table grow by sending made-up referrers.

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

-- As clicks_apply_v1, with a second set of parallel arrays, one element per (slot, entry, code, day, kind, value).
-- The cursor decides for both, so the sources go first: v1 moves it on. Both take the same locks in the same order,
-- and what the fence has said once it says again, since the locks are held to the end of the transaction.
CREATE FUNCTION clicks_apply_v2(
    p_stream text, p_slots smallint[], p_entries bigint[], p_codes text[], p_days date[], p_clicks bigint[],
    s_slots smallint[], s_entries bigint[], s_codes text[], s_days date[], s_kinds text[], s_values text[],
    s_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    allowed smallint[];
BEGIN
    SELECT array_agg(f.slot ORDER BY f.slot) FILTER (WHERE f.outcome = 'ok')
      INTO allowed FROM slots_fence_v1(p_slots) f;
    INSERT INTO click_cursor (slot, stream, xid, last_entry)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(allowed) a ORDER BY a
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM click_cursor c WHERE c.stream = p_stream AND c.slot = ANY (allowed)
      ORDER BY c.slot FOR UPDATE;
    WITH fresh AS (
        SELECT r.slot, r.code, r.day, r.kind, r.value, sum(r.clicks) AS clicks
          FROM unnest(s_slots, s_entries, s_codes, s_days, s_kinds, s_values, s_clicks)
            AS r (slot, entry, code, day, kind, value, clicks)
          JOIN click_cursor c ON c.slot = r.slot AND c.stream = p_stream
         WHERE r.slot = ANY (allowed) AND r.entry > c.last_entry
         GROUP BY r.slot, r.code, r.day, r.kind, r.value
    ), placed AS (
        SELECT f.*, k.value IS NOT NULL AS known,
               row_number() OVER (PARTITION BY f.slot, f.code, f.day, f.kind, k.value IS NULL ORDER BY f.clicks DESC)
             + (SELECT count(*) FROM click_sources n
                 WHERE n.slot = f.slot AND n.code = f.code AND n.day = f.day AND n.kind = f.kind) AS place
          FROM fresh f LEFT JOIN click_sources k USING (slot, code, day, kind, value)
    )
    INSERT INTO click_sources AS s (slot, code, day, kind, value, xid, clicks)
         SELECT p.slot, p.code, p.day, p.kind, q.value, pg_current_xact_id(), sum(p.clicks)
           FROM placed p, LATERAL (SELECT CASE WHEN p.known OR p.place <= 100 THEN p.value ELSE '*' END) q (value)
          GROUP BY p.slot, p.code, p.day, p.kind, q.value
          ORDER BY p.slot, p.code COLLATE "C", p.day, p.kind COLLATE "C", q.value COLLATE "C"
    ON CONFLICT (slot, code, day, kind, value) DO UPDATE SET clicks = s.clicks + excluded.clicks, xid = excluded.xid;
    RETURN QUERY SELECT * FROM clicks_apply_v1(p_stream, p_slots, p_entries, p_codes, p_days, p_clicks);
END $$;
