-- The hand-off: the statements that change `slots` while a slot goes from one shard to another.
--
-- Each function does one step of `ring/handoff.py` for a batch of slots, all or nothing, and raises SN001 when
-- what it finds is not what the step starts from: the caller then looks again and decides anew. Every step on
-- either side checks the move's token, so a migrator that was paused and has been replaced can do nothing more.
-- Locks are taken in ascending order of slot.

-- Raises SN001 unless a step has changed as many slots as it was asked to.
CREATE FUNCTION handoff_expect_v1(p_step text, p_slots smallint[], p_changed bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_changed <> cardinality(p_slots) THEN
        RAISE EXCEPTION '% found % of % slots in the state that it starts from',
            p_step, p_changed, cardinality(p_slots) USING ERRCODE = 'SN001';
    END IF;
END $$;

-- Target: the slots are to come here from `p_source` and will be owned at `p_epochs`. A row that is held here, or
-- whose epoch is not older, is refused. Taking over another token waits for that token's open copies, which
-- hold the rows FOR SHARE. The caller purges what rows the slots have here before it copies.
CREATE FUNCTION handoff_import_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    INSERT INTO slots AS s (slot, state, epoch, peer, move_token)
         SELECT u.slot, 'importing', u.epoch, p_source, p_token
           FROM unnest(p_slots, p_epochs) AS u (slot, epoch) ORDER BY u.slot
    ON CONFLICT (slot) DO UPDATE
        SET state = 'importing', epoch = excluded.epoch, peer = excluded.peer, move_token = excluded.move_token
      WHERE s.state = 'released' AND s.epoch < excluded.epoch
         OR s.state = 'importing' AND s.epoch <= excluded.epoch;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('import', p_slots, changed);
END $$;

-- Target: to be called first in every transaction that writes rows of slots being imported.
CREATE FUNCTION handoff_hold_v1(p_slots smallint[], p_token uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE held bigint;
BEGIN
    SELECT count(*) INTO held FROM (
        SELECT 1 FROM slots s WHERE s.slot = ANY (p_slots) AND s.state = 'importing' AND s.move_token = p_token
         ORDER BY s.slot FOR SHARE) q;
    PERFORM handoff_expect_v1('copy', p_slots, held);
END $$;

-- Exclusive locks of the slots. They are granted only when no transaction that has passed the fence is left,
-- whatever it is doing; after `p_lock_ms` without one it gives up, so that a stuck writer makes no long pause.
CREATE FUNCTION handoff_lock_v1(p_slots smallint[], p_lock_ms integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('lock_timeout', p_lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1397637456, u.slot)
       FROM (SELECT slot FROM unnest(p_slots) AS u (slot) ORDER BY slot) u;
END $$;

-- Source: the slots, owned at `p_epochs`, are leaving for `p_target`. Slots that were leaving already change to the
-- new token and target. The lock makes a purge of dead rows, which passes the fence too, either finish before
-- this or see the new state.
CREATE FUNCTION handoff_leave_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid, p_lock_ms integer
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    UPDATE slots s SET state = 'leaving', peer = p_target, move_token = p_token
      FROM unnest(p_slots, p_epochs) AS u (slot, epoch)
     WHERE s.slot = u.slot AND s.epoch = u.epoch AND s.state IN ('owned', 'leaving');
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('leave', p_slots, changed);
END $$;

-- Source: nobody writes any more.
CREATE FUNCTION handoff_freeze_v1(p_slots smallint[], p_token uuid, p_lock_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    UPDATE slots s SET state = 'frozen'
     WHERE s.slot = ANY (p_slots) AND s.state = 'leaving' AND s.move_token = p_token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('freeze', p_slots, changed);
END $$;

-- Source: another migrator takes over slots that are leaving, frozen or closed.
CREATE FUNCTION handoff_adopt_v1(p_slots smallint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    UPDATE slots s SET move_token = p_token
     WHERE s.slot = ANY (p_slots) AND s.state IN ('leaving', 'frozen', 'closed') AND s.peer = p_target;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('adopt', p_slots, changed);
END $$;

-- Source: nobody reads the old copy any more.
CREATE FUNCTION handoff_close_v1(p_slots smallint[], p_token uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    UPDATE slots s SET state = 'closed'
     WHERE s.slot = ANY (p_slots) AND s.state = 'frozen' AND s.move_token = p_token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('close', p_slots, changed);
END $$;

-- Target: the decision. From this commit on the slots are owned here.
CREATE FUNCTION handoff_own_v1(p_slots smallint[], p_token uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    UPDATE slots s SET state = 'owned', peer = NULL, move_token = NULL
     WHERE s.slot = ANY (p_slots) AND s.state = 'importing' AND s.move_token = p_token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('own', p_slots, changed);
END $$;

-- Source, after the decision: stale routers are told where the slots are. The old rows stay until clean-up.
CREATE FUNCTION handoff_release_v1(p_slots smallint[], p_token uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    UPDATE slots s SET state = 'released', epoch = s.epoch + 1, move_token = NULL
     WHERE s.slot = ANY (p_slots) AND s.state IN ('frozen', 'closed') AND s.move_token = p_token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('release', p_slots, changed);
END $$;

-- Target, abort: the slots do not come here after all; their owner stays the source at the epoch before.
CREATE FUNCTION handoff_withdraw_v1(p_slots smallint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM 1 FROM slots s WHERE s.slot = ANY (p_slots) ORDER BY s.slot FOR UPDATE;
    UPDATE slots s SET state = 'released', epoch = s.epoch - 1, move_token = NULL
     WHERE s.slot = ANY (p_slots) AND s.state = 'importing';
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('withdraw', p_slots, changed);
END $$;

-- Source, abort, after the target has withdrawn: the slots are owned here as before, at the same epoch.
CREATE FUNCTION handoff_keep_v1(p_slots smallint[], p_token uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    UPDATE slots s SET state = 'owned', peer = NULL, move_token = NULL
     WHERE s.slot = ANY (p_slots) AND s.state IN ('leaving', 'frozen', 'closed') AND s.move_token = p_token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('keep', p_slots, changed);
END $$;

-- Which migrator works, and what it says of itself. Losing or doubling this row harms nothing but the pace.
CREATE TABLE migrator (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder       uuid        NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    status       text        NOT NULL
);

-- Takes or renews the work for `p_holder`; false while another's heartbeat is younger than `p_lease_ms`.
CREATE FUNCTION migrator_lease_v1(p_holder uuid, p_lease_ms integer, p_status text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO migrator AS m (holder, heartbeat_at, status) VALUES (p_holder, clock_timestamp(), p_status)
    ON CONFLICT (only_row) DO UPDATE
        SET holder = excluded.holder, heartbeat_at = excluded.heartbeat_at, status = excluded.status
      WHERE m.holder = excluded.holder
         OR m.heartbeat_at < clock_timestamp() - make_interval(secs => p_lease_ms / 1000.0);
    RETURN FOUND;
END $$;

-- What operators did: one row per changing command, on every shard that could be reached.
CREATE TABLE audit (
    id      uuid PRIMARY KEY,
    at      timestamptz NOT NULL,
    who     text NOT NULL,
    what    text NOT NULL,
    outcome text NOT NULL
);
