-- Months of clicks: what becomes of days that are no longer kept.
--
-- Folding replaces the days of a link, or of a group, by one row for their month, in one transaction. So clicks are in a
-- day or in a month, and never in both. A late click for a day that was folded makes a new row of that day, which the
-- next folding adds to the month. Totals stay as they are.
--
-- A month tells what its days told, with the bounds of a day: `hour` and `bot_hour` are then the hours of all its days.
-- The visitors of a month are not known, since somebody who came on two days is in both of their estimates.
-- `daily_visitors` is the sum of these estimates.

-- A move that copies slots now does not know the tables.
LOCK TABLE slots IN SHARE MODE;
DO $$
BEGIN
    IF EXISTS (SELECT FROM slots WHERE state NOT IN ('owned', 'released')) THEN
        RAISE EXCEPTION 'slots are in hand-off: run `snapurl-reshard pause`, wait until `status` shows none, migrate again';
    END IF;
END $$;

CREATE TABLE click_months (
    slot   smallint NOT NULL,
    code   text COLLATE "C" NOT NULL,
    month  date     NOT NULL CHECK (extract(day FROM month) = 1),
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    bots   bigint   NOT NULL CHECK (bots BETWEEN 0 AND clicks),
    daily_visitors bigint NOT NULL,
    sources jsonb,
    PRIMARY KEY (slot, code, month)
);

CREATE TABLE click_group_months (
    slot   smallint NOT NULL,
    scope  text COLLATE "C" NOT NULL CHECK (scope IN ('account', 'account_tag', 'domain', 'tag')),
    key    text COLLATE "C" NOT NULL,
    month  date     NOT NULL CHECK (extract(day FROM month) = 1),
    xid    xid8     NOT NULL DEFAULT pg_current_xact_id(),
    clicks bigint   NOT NULL CHECK (clicks > 0),
    bots   bigint   NOT NULL CHECK (bots BETWEEN 0 AND clicks),
    sources jsonb,
    PRIMARY KEY (slot, scope, key, month)
);
CREATE INDEX click_group_months_by_key ON click_group_months (scope, key, month);

-- The first day that is kept: the first of a month, so that months are folded whole. Never one of the last seven days,
-- whose visitors may still be counted, whatever the clock of the caller says.
CREATE FUNCTION clicks_kept_from_v1(p_before date) RETURNS date LANGUAGE sql STABLE AS $$
    SELECT date_trunc('month', least(p_before, (now() AT TIME ZONE 'UTC')::date - 7)::timestamp)::date
$$;

-- The slots from `p_first` to `p_last` of which this shard has days to fold, also those that it must not fold now, and the
-- oldest such day. The scan reads the keys of all days of these slots, and the rows of those alone that are to be folded.
CREATE FUNCTION clicks_foldable_v1(p_first smallint, p_last smallint, p_before date)
RETURNS TABLE (slot smallint, oldest date) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
    SELECT d.slot, min(d.day)
      FROM (SELECT slot, day FROM click_days WHERE slot BETWEEN p_first AND p_last AND day < clicks_kept_from_v1(p_before)
            UNION ALL
            SELECT slot, day FROM click_groups WHERE slot BETWEEN p_first AND p_last AND day < clicks_kept_from_v1(p_before)) d
      JOIN slots s ON s.slot = d.slot AND read_outcome_v1(s.state) = 'ok'
     GROUP BY d.slot
$$;

-- Folds days of links of a slot that are before the month of `p_before`, in slots in state 'owned' alone: a row that
-- disappears between copy and verification would fail a hand-off.
--
-- One call folds at most `p_months` months of links with codes from `p_from` on, and after the first one no more than
-- `p_bytes` of what their days tell. Returns the fence's outcome ('busy' in a hand-off), how many days were folded, from
-- which code on there may be more (null: there are none).
--
-- Takes turns with calls that count clicks. What there is to fold is looked for before that.
CREATE FUNCTION clicks_fold_links_v1(
    p_slot smallint, p_from text, p_before date, p_months integer, p_bytes integer,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT folded bigint, OUT more_from text
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    before date := clicks_kept_from_v1(p_before);
    codes text[];
    months date[];
BEGIN
    SELECT array_agg(m.code ORDER BY m.place) FILTER (WHERE m.bytes_before <= p_bytes OR m.place = 1),
           array_agg(m.month ORDER BY m.place) FILTER (WHERE m.bytes_before <= p_bytes OR m.place = 1)
      INTO codes, months
      FROM (SELECT f.code, f.month, row_number() OVER w AS place, sum(f.bytes) OVER w AS bytes_before
              FROM (SELECT d.code, date_trunc('month', d.day::timestamp)::date AS month,
                           sum(coalesce(pg_column_size(d.sources), 0) + coalesce(octet_length(d.unmerged), 0)) AS bytes
                      FROM click_days d WHERE d.slot = p_slot AND d.code >= p_from AND d.day < before
                     GROUP BY 1, 2 ORDER BY 1, 2 LIMIT p_months) f
            WINDOW w AS (ORDER BY f.code, f.month)) m;
    outcome := 'ok';
    folded := 0;
    IF codes IS NULL THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock(1397637443, 0);
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    IF NOT EXISTS (SELECT FROM slots s WHERE s.slot = p_slot AND s.state = 'owned') THEN
        outcome := 'busy';
        RETURN;
    END IF;
    more_from := codes[cardinality(codes)];
    WITH gone AS (
        DELETE FROM click_days d USING unnest(codes, months) AS m (code, month)
         WHERE d.slot = p_slot AND d.code = m.code AND d.day >= m.month AND d.day < (m.month + interval '1 month')::date
        RETURNING d.code, m.month, d.clicks, d.bots, least(d.visitors, d.clicks - d.bots) AS visitors,
                  nullif(concat_ws(',', d.sources::text, d.unmerged), '') AS told
    ), put AS (
        INSERT INTO click_months AS m (slot, code, month, xid, clicks, bots, daily_visitors, sources)
             SELECT p_slot, g.code, g.month, pg_current_xact_id(), sum(g.clicks), sum(g.bots), sum(g.visitors),
                    clicks_merge_v1(NULL, string_agg(g.told, ','))
               FROM gone g GROUP BY g.code, g.month
        ON CONFLICT (slot, code, month) DO UPDATE SET
            xid = excluded.xid, clicks = m.clicks + excluded.clicks, bots = m.bots + excluded.bots,
            daily_visitors = m.daily_visitors + excluded.daily_visitors,
            sources = clicks_merge_v1(m.sources, excluded.sources::text)
    )
    SELECT count(*) INTO folded FROM gone;
END $$;

-- As `clicks_fold_links_v1`, for the groups that are counted in a slot; from scope `p_scope` and key `p_key` on.
CREATE FUNCTION clicks_fold_groups_v1(
    p_slot smallint, p_scope text, p_key text, p_before date, p_months integer, p_bytes integer,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT folded bigint, OUT more_scope text, OUT more_key text
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    before date := clicks_kept_from_v1(p_before);
    scopes text[];
    keys text[];
    months date[];
BEGIN
    SELECT array_agg(m.scope ORDER BY m.place) FILTER (WHERE m.bytes_before <= p_bytes OR m.place = 1),
           array_agg(m.key ORDER BY m.place) FILTER (WHERE m.bytes_before <= p_bytes OR m.place = 1),
           array_agg(m.month ORDER BY m.place) FILTER (WHERE m.bytes_before <= p_bytes OR m.place = 1)
      INTO scopes, keys, months
      FROM (SELECT f.*, row_number() OVER w AS place, sum(f.bytes) OVER w AS bytes_before
              FROM (SELECT d.scope, d.key, date_trunc('month', d.day::timestamp)::date AS month,
                           sum(coalesce(pg_column_size(d.sources), 0) + coalesce(octet_length(d.unmerged), 0)) AS bytes
                      FROM click_groups d WHERE d.slot = p_slot AND (d.scope, d.key) >= (p_scope, p_key) AND d.day < before
                     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3 LIMIT p_months) f
            WINDOW w AS (ORDER BY f.scope, f.key, f.month)) m;
    outcome := 'ok';
    folded := 0;
    IF keys IS NULL THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock(1397637443, 0);
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    IF NOT EXISTS (SELECT FROM slots s WHERE s.slot = p_slot AND s.state = 'owned') THEN
        outcome := 'busy';
        RETURN;
    END IF;
    more_scope := scopes[cardinality(keys)];
    more_key := keys[cardinality(keys)];
    WITH gone AS (
        DELETE FROM click_groups d USING unnest(scopes, keys, months) AS m (scope, key, month)
         WHERE d.slot = p_slot AND d.scope = m.scope AND d.key = m.key
           AND d.day >= m.month AND d.day < (m.month + interval '1 month')::date
        RETURNING d.scope, d.key, m.month, d.clicks, d.bots, nullif(concat_ws(',', d.sources::text, d.unmerged), '') AS told
    ), put AS (
        INSERT INTO click_group_months AS m (slot, scope, key, month, xid, clicks, bots, sources)
             SELECT p_slot, g.scope, g.key, g.month, pg_current_xact_id(), sum(g.clicks), sum(g.bots),
                    clicks_merge_v1(NULL, string_agg(g.told, ','))
               FROM gone g GROUP BY g.scope, g.key, g.month
        ON CONFLICT (slot, scope, key, month) DO UPDATE SET
            xid = excluded.xid, clicks = m.clicks + excluded.clicks, bots = m.bots + excluded.bots,
            sources = clicks_merge_v1(m.sources, excluded.sources::text)
    )
    SELECT count(*) INTO folded FROM gone;
END $$;
