-- Totals: the clicks of each link in one row, by which lists are sorted.
--
-- `clicks_apply_v2` keeps them, in the transaction and under the cursor of `click_days`: a total is the sum of the
-- link's days at any time. A link without clicks has no row, so a create pays nothing.

-- A move that copies slots now does not know the table.
LOCK TABLE slots IN SHARE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM slots WHERE state NOT IN ('owned', 'released')) THEN
        RAISE EXCEPTION 'slots are in hand-off: run `snapurl-reshard pause`, wait until `status` shows none, migrate again';
    END IF;
END $$;

-- Nobody counts clicks until this transaction ends. A call that has begun and waits here would go on as the function
-- was when it began, and keep no totals. It fails because this column has another name, and its caller repeats it.
ALTER TABLE click_cursor RENAME COLUMN last_entry TO counted_to;
DROP FUNCTION clicks_apply_v1;  -- no released program calls it

-- Every count is an update, so pages have room for the next version of a row.
CREATE TABLE click_totals (
    slot   smallint NOT NULL,
    code   text COLLATE "C" NOT NULL,
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    PRIMARY KEY (slot, code)
) WITH (fillfactor = 80);
INSERT INTO click_totals (slot, code, clicks) SELECT d.slot, d.code, sum(d.clicks) FROM click_days d GROUP BY d.slot, d.code;
CREATE INDEX click_totals_most ON click_totals (clicks DESC, code DESC);

-- As it was in 0010, with the same arguments and answers, but for the totals. If a few of the rows show that most are
-- there already, it updates what is there and then inserts the rest: an upsert locks each row before it updates it, and
-- logs both. In between nobody else may insert, so calls for different streams wait for each other, too.
--
-- Without sequential scans, hash and merge joins: the planner cannot know how many rows a table has in a session that
-- began with an empty one.
CREATE OR REPLACE FUNCTION clicks_apply_v2(
    p_stream text, p_slots smallint[], p_firsts bigint[], p_lasts bigint[],
    c_slots smallint[], c_codes text[], c_days date[], c_clicks bigint[],
    s_slots smallint[], s_codes text[], s_days date[], s_kinds text[], s_values text[], s_clicks bigint[]
) RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint, last_entry bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    updated bigint;
    sampled bigint := 1 + cardinality(c_slots) / 16;
    are_known boolean;
    are_totals_known boolean;
    are_new boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(1397637443, 0);
    RETURN QUERY SELECT f.slot, f.outcome, f.peer, f.epoch, NULL::bigint
                   FROM slots_fence_v1(p_slots) f WHERE f.outcome <> 'ok';
    IF FOUND THEN RETURN; END IF;
    RETURN QUERY SELECT n.slot, CASE WHEN c.counted_to >= n.last THEN 'done' ELSE 'behind' END, NULL::text, NULL::bigint,
                        c.counted_to
                   FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
                   JOIN click_cursor c ON c.slot = n.slot AND c.stream = p_stream
                  WHERE c.counted_to >= n.first;
    IF FOUND THEN RETURN; END IF;
    INSERT INTO click_cursor (slot, stream, xid, counted_to)
         SELECT a, p_stream, pg_current_xact_id(), -1 FROM unnest(p_slots) a
          WHERE NOT EXISTS (SELECT FROM click_cursor c WHERE c.slot = a AND c.stream = p_stream)
          ORDER BY a
    ON CONFLICT DO NOTHING;
    UPDATE click_cursor c SET counted_to = n.last, xid = pg_current_xact_id()
      FROM unnest(p_slots, p_firsts, p_lasts) AS n (slot, first, last)
     WHERE c.slot = n.slot AND c.stream = p_stream AND c.counted_to < n.first;
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
        UPDATE click_days d SET clicks = d.clicks + r.clicks, xid = pg_current_xact_id()
          FROM unnest(c_slots, c_codes, c_days, c_clicks) AS r (slot, code, day, clicks)
         WHERE d.slot = r.slot AND d.code = r.code AND d.day = r.day;
        GET DIAGNOSTICS updated = ROW_COUNT;
    END IF;
    IF updated < cardinality(c_slots) THEN
        WITH put AS (
            INSERT INTO click_days AS d (slot, code, day, xid, clicks)
                 SELECT r.slot, r.code, r.day, pg_current_xact_id(), r.clicks
                   FROM unnest(c_slots, c_codes, c_days, c_clicks) AS r (slot, code, day, clicks)
                  WHERE NOT are_known OR (SELECT d.day FROM click_days d
                                           WHERE d.slot = r.slot AND d.code = r.code AND d.day = r.day) IS NULL
            ON CONFLICT (slot, code, day) DO UPDATE SET clicks = d.clicks + excluded.clicks, xid = excluded.xid
            RETURNING clicks
        )
        SELECT sum(clicks) = (SELECT sum(c) FROM unnest(c_clicks) AS c) INTO are_new FROM put;
    END IF;

    IF NOT are_known THEN  -- perhaps it is just a new day
        SELECT 2 * count(t.slot) > count(*) INTO are_totals_known
          FROM unnest(c_slots, c_codes) WITH ORDINALITY AS r (slot, code, place)
          LEFT JOIN click_totals t ON t.slot = r.slot AND t.code = r.code
         WHERE r.place % sampled = 0;
    END IF;
    updated := 0;
    IF are_known OR are_totals_known THEN
        UPDATE click_totals t SET clicks = t.clicks + r.clicks, xid = pg_current_xact_id()
          FROM (SELECT slot, code COLLATE "C" AS code, sum(clicks) AS clicks
                  FROM unnest(c_slots, c_codes, c_clicks) AS c (slot, code, clicks)
                 GROUP BY slot, code COLLATE "C" ORDER BY slot, code COLLATE "C") r
         WHERE t.slot = r.slot AND t.code = r.code;
        GET DIAGNOSTICS updated = ROW_COUNT;
    END IF;
    IF updated < cardinality(c_slots) THEN
        INSERT INTO click_totals AS t (slot, code, xid, clicks)
             SELECT r.slot, r.code COLLATE "C", pg_current_xact_id(), sum(r.clicks)
               FROM unnest(c_slots, c_codes, c_clicks) AS r (slot, code, clicks)
              WHERE updated = 0 OR (SELECT t.slot FROM click_totals t WHERE t.slot = r.slot AND t.code = r.code) IS NULL
              GROUP BY r.slot, r.code COLLATE "C" ORDER BY r.slot, r.code COLLATE "C"
        ON CONFLICT (slot, code) DO UPDATE SET clicks = t.clicks + excluded.clicks, xid = excluded.xid;
    END IF;

    IF cardinality(s_slots) = 0 THEN RETURN; END IF;
    IF are_known THEN
        UPDATE click_sources s SET clicks = s.clicks + r.clicks, xid = pg_current_xact_id()
          FROM unnest(s_slots, s_codes, s_days, s_kinds, s_values, s_clicks) AS r (slot, code, day, kind, value, clicks)
         WHERE s.slot = r.slot AND s.code = r.code AND s.day = r.day AND s.kind = r.kind AND s.value = r.value;
        GET DIAGNOSTICS updated = ROW_COUNT;
        IF updated = cardinality(s_slots) THEN RETURN; END IF;
    END IF;
    -- Without rows of the days there are none of their sources.
    IF are_new AND NOT EXISTS (SELECT FROM unnest(s_slots, s_codes, s_days, s_kinds) AS s (slot, code, day, kind)
                                GROUP BY s.slot, s.code, s.day, s.kind HAVING count(*) > 100) THEN
        INSERT INTO click_sources (slot, code, day, kind, value, xid, clicks)
             SELECT s.slot, s.code, s.day, s.kind, s.value, pg_current_xact_id(), s.clicks
               FROM unnest(s_slots, s_codes, s_days, s_kinds, s_values, s_clicks)
                 AS s (slot, code, day, kind, value, clicks);
        RETURN;
    END IF;
    WITH given AS MATERIALIZED (
        SELECT f.slot, f.code COLLATE "C" AS code, f.day, f.kind COLLATE "C" AS kind, f.value COLLATE "C" AS value,
               f.clicks
          FROM unnest(s_slots, s_codes, s_days, s_kinds, s_values, s_clicks)
            AS f (slot, code, day, kind, value, clicks)
         WHERE NOT are_known OR (SELECT s.day FROM click_sources s
                                  WHERE s.slot = f.slot AND s.code = f.code AND s.day = f.day AND s.kind = f.kind
                                    AND s.value = f.value) IS NULL
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
