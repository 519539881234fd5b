-- The steps of a hand-off: the only statements that change `slots` once a cluster is initialised.
--
-- Each function is one step of `ring/handoff.py` (which holds the theory, and whose RULES these guards repeat) for a
-- batch of slots: all of them or none. It raises SN001 when it does not find what the step starts from; the
-- caller then looks again. `p_epochs` are the epochs of the moves, one per slot. Every step compares the token
-- of the attempt in the transaction in which it acts, so a migrator that was stopped and has been replaced can
-- do nothing more. Slots are given, and locked, in ascending order.

CREATE FUNCTION handoff_expect_v1(p_step text, p_slots smallint[], p_found bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_found <> cardinality(p_slots) THEN
        RAISE EXCEPTION '%: % of % slots are as the step expects them', p_step, p_found, cardinality(p_slots)
            USING ERRCODE = 'SN001';
    END IF;
END $$;

-- The mark of a session that purges, copies or cleans these slots, until its transaction ends.
CREATE FUNCTION handoff_mark_v1(p_slots smallint[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock_shared(1213156420, u.slot) FROM unnest(p_slots) AS u (slot)
$$;

-- Ends the sessions with a mark on these slots, unless a row is from after `p_epochs`. Only who has taken the work over
-- from them calls this, so they work for nothing; but one whose migrator was stopped, or is behind a dead connection,
-- would hold the rows until somebody noticed, and the slots would stay frozen for as long. What they did not commit is
-- rolled back.
CREATE FUNCTION handoff_evict_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_terminate_backend(q.pid) FROM (
        SELECT DISTINCT l.pid FROM pg_locks l
          JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) ON l.objid::bigint = u.slot
          JOIN slots s ON s.slot = u.slot AND s.epoch <= u.epoch
         WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.classid = 1213156420 AND l.objsubid = 2) q;
END $$;

-- Exclusive locks of the slots. They are granted only when no transaction that has passed the fence is left,
-- whatever it is doing; after `p_lock_ms` without one it gives up, so that a stuck writer makes no long pause.
CREATE FUNCTION handoff_lock_v1(p_slots smallint[], p_lock_ms integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('lock_timeout', p_lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1397637456, u.slot)
       FROM (SELECT slot FROM unnest(p_slots) AS u (slot) ORDER BY slot) u;
END $$;

-- The rows of the slots that are in one of `p_states` at the move's epoch, with this peer and, unless it is null, this
-- token: locked FOR UPDATE. Raises SN001 if any is missing.
CREATE FUNCTION handoff_find_v1(
    p_step text, p_states text[], p_slots smallint[], p_epochs bigint[], p_peer text, p_token uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.state = ANY (p_states) AND s.epoch = u.epoch AND s.peer IS NOT DISTINCT FROM p_peer
           AND (p_token IS NULL OR s.move_token = p_token)
         ORDER BY s.slot FOR UPDATE OF s) q;
    PERFORM handoff_expect_v1(p_step, p_slots, found);
END $$;

-- ---- on the source --------------------------------------------------------------------------------------------

-- The slots serve as before, but no purge of dead rows touches them. A purge passes the fence, so the exclusive
-- lock makes it either finish before this or see the new state.
CREATE FUNCTION handoff_leave_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid, p_lock_ms integer
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    PERFORM handoff_find_v1('leave', '{owned}', p_slots, p_epochs, NULL, NULL);
    UPDATE slots SET state = 'leaving', peer = p_target, move_token = p_token WHERE slot = ANY (p_slots);
END $$;

-- This attempt takes over from the ones that were found: state and token, one each per slot. The state counts,
-- since freezing and closing keep the token: who decided what to do about a slot that was leaving must not get
-- hold of one that was closed since.
CREATE FUNCTION handoff_claim_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_found_states text[], p_found_tokens uuid[],
    p_token uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM handoff_find_v1('claim', '{leaving,frozen,closed}', p_slots, p_epochs, p_target, NULL);
    UPDATE slots s SET move_token = p_token
      FROM unnest(p_slots, p_found_states, p_found_tokens) AS u (slot, state, token)
     WHERE s.slot = u.slot AND s.state = u.state AND s.move_token = u.token;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('claim', p_slots, changed);
END $$;

-- Nobody writes any more. The locks are taken in one statement and the state is read in the next.
CREATE FUNCTION handoff_freeze_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid, p_lock_ms integer
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    PERFORM handoff_find_v1('freeze', '{leaving}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'frozen' WHERE slot = ANY (p_slots);
END $$;

-- Nobody reads the old copy any more. Every attempt closes, also slots that are closed already.
CREATE FUNCTION handoff_close_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('close', '{frozen,closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'closed' WHERE slot = ANY (p_slots);
END $$;

-- After the decision: stale routers are told where the slots are. The old rows stay until they are cleaned.
CREATE FUNCTION handoff_release_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('release', '{closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'released', epoch = epoch + 1, move_token = NULL WHERE slot = ANY (p_slots);
END $$;

-- The way back, after the target has retracted: the slots are owned here as before, at the same epoch.
CREATE FUNCTION handoff_restore_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('restore', '{leaving,frozen,closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'owned', peer = NULL, move_token = NULL WHERE slot = ANY (p_slots);
END $$;

-- To be called first in a transaction that deletes rows of slots which this shard has given away.
CREATE FUNCTION handoff_clean_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.state = 'released' AND s.epoch = u.epoch ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('clean', p_slots, found);
END $$;

-- ---- on the target --------------------------------------------------------------------------------------------

-- The attempt is recorded.
CREATE FUNCTION handoff_import_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    -- Waiting happens here, before the INSERT takes the counter that every change of `slots` on this shard needs.
    PERFORM 1 FROM slots s WHERE s.slot = ANY (p_slots) ORDER BY s.slot FOR UPDATE;
    INSERT INTO slots AS s (slot, state, epoch, peer, move_token)
         SELECT u.slot, 'importing', u.epoch, p_source, p_token
           FROM unnest(p_slots, p_epochs) AS u (slot, epoch) ORDER BY u.slot
    ON CONFLICT (slot) DO UPDATE
        SET state = 'importing', epoch = excluded.epoch, peer = excluded.peer, move_token = excluded.move_token
      WHERE s.state IN ('released', 'importing') AND s.epoch <= excluded.epoch;
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM handoff_expect_v1('import', p_slots, changed);
END $$;

-- This attempt goes on with the import of another.
CREATE FUNCTION handoff_adopt_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM handoff_find_v1('adopt', '{importing}', p_slots, p_epochs, p_source, NULL);
    UPDATE slots SET move_token = p_token WHERE slot = ANY (p_slots);
END $$;

-- To be called first in every transaction that purges or copies: it is this attempt's import, and no other attempt can
-- take it over before the transaction ends. The mark comes first: nobody holds rows without it.
CREATE FUNCTION handoff_hold_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.state = 'importing' AND s.epoch = u.epoch AND s.peer = p_source AND s.move_token = p_token
         ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('hold', p_slots, found);
END $$;

-- The decision: with this commit the slots are owned here, at the next epoch.
CREATE FUNCTION handoff_commit_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('commit', '{importing}', p_slots, p_epochs, p_source, p_token);
    UPDATE slots SET state = 'owned', epoch = epoch + 1, peer = NULL, move_token = NULL
     WHERE slot = ANY (p_slots);
END $$;

-- The way back: every commit of this move that is under way will fail. Slots without such an import are as good,
-- but if one has a later epoch its move is decided, and there is no way back.
CREATE FUNCTION handoff_retract_v1(p_slots smallint[], p_epochs bigint[], p_source text) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE open bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM 1 FROM slots s WHERE s.slot = ANY (p_slots) ORDER BY s.slot FOR UPDATE;
    UPDATE slots s SET state = 'released', move_token = NULL
      FROM unnest(p_slots, p_epochs) AS u (slot, epoch)
     WHERE s.slot = u.slot AND s.state = 'importing' AND s.epoch = u.epoch AND s.peer = p_source;
    SELECT count(*) INTO open FROM unnest(p_slots, p_epochs) AS u (slot, epoch)
      LEFT JOIN slots s USING (slot) WHERE s.slot IS NULL OR s.epoch <= u.epoch;
    PERFORM handoff_expect_v1('retract', p_slots, open);
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
