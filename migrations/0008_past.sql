-- A shard with a past: which start of its server may serve.
--
-- `ring/restarts.py` has the theory. A server that comes back may have lost transactions: a standby was promoted, or an
-- older backup was put back. Either way its postmaster has started at another moment than the one that was vouched
-- for, so nothing is served until somebody has compared the rows of `slots` with those of the other shards. That a
-- server is only started again looks the same, and is vouched for in the same way.

-- Where the write-ahead log of another shard was when that shard was last vouched for, so that a server on an older
-- timeline is known for one that was replaced.
CREATE TABLE peer_logs (
    shard    text PRIMARY KEY,
    timeline bigint      NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now()
);

-- The timeline on which this server writes; null on a standby.
CREATE FUNCTION shard_timeline_v1() RETURNS bigint LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN NOT pg_is_in_recovery()
                THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END
$$;

-- The defaults vouch for a shard that is being made: it has no past. One that is migrated has to be vouched for.
ALTER TABLE cluster
    ADD COLUMN vouched_start timestamptz,
    ADD COLUMN vouched_timeline bigint;
UPDATE cluster SET vouched_timeline = shard_timeline_v1();
ALTER TABLE cluster
    ALTER COLUMN vouched_start SET DEFAULT pg_postmaster_start_time(),
    ALTER COLUMN vouched_timeline SET DEFAULT shard_timeline_v1();

-- Lets this server serve, if it is the start `p_started` that was looked at; false if it is another.
CREATE FUNCTION shard_vouch_v1(p_started timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE cluster SET vouched_start = p_started, vouched_timeline = shard_timeline_v1()
     WHERE pg_postmaster_start_time() = p_started;
    IF FOUND THEN
        PERFORM pg_notify('snapurl_slots', 'vouched');
    END IF;
    RETURN FOUND;
END $$;

-- Remembers on which timeline another shard is; answers with the newest that was ever told.
CREATE FUNCTION shard_peer_seen_v1(p_shard text, p_timeline bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE newest bigint;
BEGIN
    INSERT INTO peer_logs AS p (shard, timeline) VALUES (p_shard, p_timeline)
    ON CONFLICT (shard) DO UPDATE SET timeline = greatest(p.timeline, excluded.timeline), seen_at = now()
    RETURNING p.timeline INTO newest;
    RETURN newest;
END $$;

-- As before, and 'busy' on a server that nobody has vouched for.
CREATE OR REPLACE FUNCTION slot_fence_v1(p_slot smallint, OUT outcome text, OUT peer text, OUT epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'fenced writes need READ COMMITTED';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1397637456, p_slot);
    SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time())
                THEN write_outcome_v1(s.state) ELSE 'busy' END, s.peer, s.epoch INTO outcome, peer, epoch
      FROM slots s WHERE s.slot = p_slot;
    outcome := coalesce(outcome, 'moved');
END $$;

CREATE OR REPLACE FUNCTION slots_fence_v1(p_slots smallint[])
RETURNS TABLE (slot smallint, outcome text, peer text, epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'fenced writes need READ COMMITTED';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1397637456, q.slot)
       FROM (SELECT DISTINCT slot FROM unnest(p_slots) AS u (slot) ORDER BY slot) q;
    RETURN QUERY
        SELECT q.slot, CASE WHEN EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time())
                            THEN coalesce(write_outcome_v1(s.state), 'moved') ELSE 'busy' END, s.peer, s.epoch
          FROM (SELECT DISTINCT slot FROM unnest(p_slots) AS u (slot)) q LEFT JOIN slots s USING (slot);
END $$;

-- As before, and no step begins on a server that nobody has vouched for: what it would start from may be its past.
CREATE OR REPLACE FUNCTION handoff_find_v1(
    p_step text, p_states text[], p_slots smallint[], p_epochs bigint[], p_peer text, p_token uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM cluster WHERE vouched_start = pg_postmaster_start_time()) THEN
        RAISE EXCEPTION '%: this server has started anew and was not vouched for yet', p_step
            USING ERRCODE = 'SN001';
    END IF;
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.state = ANY (p_states) AND s.epoch = u.epoch AND s.peer IS NOT DISTINCT FROM p_peer
           AND (p_token IS NULL OR s.move_token = p_token)
         ORDER BY s.slot FOR UPDATE OF s) q;
    PERFORM handoff_expect_v1(p_step, p_slots, found);
END $$;
