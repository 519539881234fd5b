-- The steps of a hand-off. Once a cluster is initialised, no other statement changes `slots`.
--
-- Each function is one step of `ring/handoff.py`, which holds the theory and whose RULES these guards repeat. It
-- applies to all slots of a batch or to none: it raises SN001 if it does not find what the step starts from, and the
-- caller reads the states again. `p_epochs` holds the epoch of each slot's move. Every step compares the attempt's
-- token in the transaction in which it acts, so a migrator that was stopped and replaced can change nothing any more.
-- Slots are given, and locked, in ascending order.
--
-- These functions run with the rights of the migrator that calls them; handoff_end_v1 alone runs as the owner.

CREATE FUNCTION handoff_expect_v1(p_step text, p_slots smallint[], p_found bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF p_found <> cardinality(p_slots) THEN
        RAISE EXCEPTION '%: % of % slots are as the step expects them', p_step, p_found, cardinality(p_slots)
            USING ERRCODE = 'SN001';
    END IF;
END $$;

-- Marks this session as one that purges, copies or cleans these slots, until its transaction ends.
CREATE FUNCTION handoff_mark_v1(p_slots smallint[]) RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock_shared(1213156420, u.slot) FROM unnest(p_slots) AS u (slot)
$$;

-- Terminates a session that has marked slots of this database, and no other session. A session that is gone is no
-- error.
--
-- PostgreSQL lets a user terminate another user's sessions only as a member of pg_signal_backend, which covers the
-- whole server. So this function runs as the tables' owner: where several users work as migrators, the owner needs
-- that membership, and a migrator can terminate nothing but marked sessions.
CREATE FUNCTION handoff_end_v1(p_pid integer) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_terminate_backend(l.pid) FROM pg_locks l
      WHERE l.pid = p_pid AND l.locktype = 'advisory' AND l.granted AND l.classid = 1213156420 AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'session % of another migrator holds the slots, and % may not end it', p_pid, current_user
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('GRANT pg_signal_backend TO %I, or as a superuser SELECT pg_terminate_backend(%s)',
                            current_user, p_pid);
END $$;

-- Terminates the sessions that have marked these slots, unless a row is newer than `p_epochs`. Only a migrator that
-- has taken the work over calls this, so the work of those sessions is superseded. One whose migrator is stopped,
-- or whose connection is dead, would otherwise hold the rows and keep the slots frozen. What they have not committed
-- is rolled back.
CREATE FUNCTION handoff_evict_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE stale integer;
BEGIN
    FOR stale IN
        SELECT DISTINCT l.pid FROM pg_locks l
          JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) ON l.objid::bigint = u.slot
          JOIN slots s ON s.slot = u.slot AND s.epoch <= u.epoch
         WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.classid = 1213156420 AND l.objsubid = 2
    LOOP
        BEGIN
            PERFORM pg_terminate_backend(stale);
        EXCEPTION WHEN insufficient_privilege THEN
            PERFORM handoff_end_v1(stale);
        END;
    END LOOP;
END $$;

-- Takes the exclusive locks of the slots. They are granted when no transaction that has passed the fence is open. The
-- call fails after `p_lock_ms` without a lock, so that a stuck writer causes no long pause.
CREATE FUNCTION handoff_lock_v1(p_slots smallint[], p_lock_ms integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM set_config('lock_timeout', p_lock_ms::text, true);
    PERFORM pg_advisory_xact_lock(1397637456, u.slot)
       FROM (SELECT slot FROM unnest(p_slots) AS u (slot) ORDER BY slot) u;
END $$;

-- Locks FOR UPDATE the rows of the slots that are in one of `p_states` at the move's epoch, with this peer and,
-- unless it is null, this token. Raises SN001 if one is missing, and on a server that is not attested: its rows may
-- be older than what the hand-off has reached.
--
-- `s.slot = ANY (p_slots)` repeats the join condition: it makes PostgreSQL look the rows up by key. Without it the
-- planner expects a single row of `slots` and may compare each row with each element of the arrays.
CREATE FUNCTION handoff_find_v1(
    p_step text, p_states text[], p_slots smallint[], p_epochs bigint[], p_peer text, p_token uuid
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time()) THEN
        RAISE EXCEPTION '%: this server has restarted and is not attested yet', p_step
            USING ERRCODE = 'SN001';
    END IF;
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots)
           AND s.state = ANY (p_states) AND s.epoch = u.epoch AND s.peer IS NOT DISTINCT FROM p_peer
           AND (p_token IS NULL OR s.move_token = p_token)
         ORDER BY s.slot FOR UPDATE OF s) q;
    PERFORM handoff_expect_v1(p_step, p_slots, found);
END $$;

-- ---- on the source --------------------------------------------------------------------------------------------

-- LEAVE: the slots serve as before, but no purge deletes their rows. A purge passes the fence, so the exclusive lock
-- makes it either finish before this step or see the new state.
CREATE FUNCTION handoff_leave_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid, p_lock_ms integer
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    PERFORM handoff_find_v1('leave', '{owned}', p_slots, p_epochs, NULL, NULL);
    UPDATE slots SET state = 'leaving', peer = p_target, move_token = p_token WHERE slot = ANY (p_slots);
END $$;

-- CLAIM: this attempt takes over from those that were found, one state and one token per slot. The state counts
-- because FREEZE and CLOSE keep the token: an attempt that planned for a leaving slot must not get a slot that was
-- closed since.
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

-- FREEZE: writes end. The locks are taken in one statement and the states are read in the next, as in the fence.
CREATE FUNCTION handoff_freeze_v1(
    p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid, p_lock_ms integer
) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_lock_v1(p_slots, p_lock_ms);
    PERFORM handoff_find_v1('freeze', '{leaving}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'frozen' WHERE slot = ANY (p_slots);
END $$;

-- CLOSE: reads of this copy end. Every attempt closes, also slots that are closed already.
CREATE FUNCTION handoff_close_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('close', '{frozen,closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'closed' WHERE slot = ANY (p_slots);
END $$;

-- RELEASE, after the decision: stale routers learn where the slots are. The old rows stay until CLEAN deletes them.
CREATE FUNCTION handoff_release_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('release', '{closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'released', epoch = epoch + 1, move_token = NULL WHERE slot = ANY (p_slots);
END $$;

-- RESTORE, after the target has retracted: the slots are owned here again, at the same epoch.
CREATE FUNCTION handoff_restore_v1(p_slots smallint[], p_epochs bigint[], p_target text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('restore', '{leaving,frozen,closed}', p_slots, p_epochs, p_target, p_token);
    UPDATE slots SET state = 'owned', peer = NULL, move_token = NULL WHERE slot = ANY (p_slots);
END $$;

-- CLEAN: to be called first in a transaction that deletes rows of slots which this shard has released.
CREATE FUNCTION handoff_clean_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots) AND s.state = 'released' AND s.epoch = u.epoch
         ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('clean', p_slots, found);
END $$;

-- ---- on the target --------------------------------------------------------------------------------------------

-- IMPORT: records the attempt.
CREATE FUNCTION handoff_import_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE changed bigint;
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    -- Wait here, before the INSERT locks the counter that every change of `slots` on this shard needs.
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

-- ADOPT: this attempt continues the import of another.
CREATE FUNCTION handoff_adopt_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_evict_v1(p_slots, p_epochs);
    PERFORM handoff_find_v1('adopt', '{importing}', p_slots, p_epochs, p_source, NULL);
    UPDATE slots SET move_token = p_token WHERE slot = ANY (p_slots);
END $$;

-- To be called first in every transaction that purges or copies: checks that the import is this attempt's, and keeps
-- other attempts from taking it over before the transaction ends. The mark comes first: nobody holds rows without it.
CREATE FUNCTION handoff_hold_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid)
RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE found bigint;
BEGIN
    PERFORM handoff_mark_v1(p_slots);
    SELECT count(*) INTO found FROM (
        SELECT 1 FROM slots s JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) USING (slot)
         WHERE s.slot = ANY (p_slots)
           AND s.state = 'importing' AND s.epoch = u.epoch AND s.peer = p_source AND s.move_token = p_token
         ORDER BY s.slot FOR SHARE OF s) q;
    PERFORM handoff_expect_v1('hold', p_slots, found);
END $$;

-- COMMIT, the decision: with this transaction the slots are owned here, at the next epoch.
CREATE FUNCTION handoff_commit_v1(p_slots smallint[], p_epochs bigint[], p_source text, p_token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM handoff_find_v1('commit', '{importing}', p_slots, p_epochs, p_source, p_token);
    UPDATE slots SET state = 'owned', epoch = epoch + 1, peer = NULL, move_token = NULL
     WHERE slot = ANY (p_slots);
END $$;

-- RETRACT: every COMMIT of this move that is under way will fail. A slot without such an import counts as retracted;
-- one at a later epoch means that the move is decided, and then the step fails.
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
