-- Ownership: which slots this shard holds, and the fence that every write passes.
--
-- A slot without a row is not owned here. Each hand-off increments `epoch`: of two claims to a slot, the one with the
-- higher epoch is newer. `peer` is the other shard of a hand-off under way; of a released slot it is the shard that
-- took the slot over, and `epoch` is then the new owner's. `move_token` identifies the attempt that runs a hand-off.

CREATE TABLE slots (
    slot       smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 16383),
    state      text     NOT NULL
               CHECK (state IN ('owned', 'leaving', 'frozen', 'closed', 'released', 'importing')),
    epoch      bigint   NOT NULL CHECK (epoch > 0),
    peer       text,
    move_token uuid,
    version    bigint   NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((state = 'owned') = (peer IS NULL))
);
CREATE INDEX slots_version ON slots (version);

-- A counter that every statement on `slots` increments. The statement updates this row first, so such transactions
-- run one after another and versions become visible in order: a reader that has seen version N has seen all before
-- it.
CREATE TABLE ownership (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL
);
INSERT INTO ownership (version) VALUES (0);

CREATE FUNCTION slots_next_version_v1() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE next_version bigint;
BEGIN
    UPDATE ownership SET version = version + 1 RETURNING version INTO next_version;
    PERFORM pg_notify('snapurl_slots', next_version::text);
    RETURN NULL;
END $$;

CREATE FUNCTION slots_stamp_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT version INTO STRICT NEW.version FROM ownership;
    NEW.changed_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER slots_1_next_version BEFORE INSERT OR UPDATE OR DELETE ON slots
    FOR EACH STATEMENT EXECUTE FUNCTION slots_next_version_v1();
CREATE TRIGGER slots_2_stamp BEFORE INSERT OR UPDATE ON slots
    FOR EACH ROW EXECUTE FUNCTION slots_stamp_v1();

-- What a state answers to a write and to a read: 'ok', 'busy' (retry shortly) or 'moved' (ask the peer). A slot that
-- is being imported is still the peer's, at the epoch in the row.
CREATE FUNCTION write_outcome_v1(state text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN state IN ('owned', 'leaving') THEN 'ok'
                WHEN state IN ('frozen', 'closed') THEN 'busy'
                ELSE 'moved' END
$$;

CREATE FUNCTION read_outcome_v1(state text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN state IN ('owned', 'leaving', 'frozen') THEN 'ok'
                WHEN state = 'closed' THEN 'busy'
                ELSE 'moved' END
$$;

-- The fence of one slot; 'busy' on a server that is not attested. The shared lock is taken in one statement and the
-- state is read in the next. Under READ COMMITTED the second statement's snapshot is newer than the lock, so it sees
-- whatever a freeze (which holds the exclusive lock) has committed. A single statement would read an older state.
CREATE FUNCTION slot_fence_v1(p_slot smallint, OUT outcome text, OUT peer text, OUT epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'fenced writes need READ COMMITTED';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1397637456, p_slot);
    SELECT CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
                THEN write_outcome_v1(s.state) ELSE 'busy' END, s.peer, s.epoch INTO outcome, peer, epoch
      FROM slots s WHERE s.slot = p_slot;
    outcome := coalesce(outcome, 'moved');
END $$;

-- The fence of many slots. Locks are taken in ascending order, as a freeze does, so that the two cannot deadlock.
CREATE FUNCTION slots_fence_v1(p_slots smallint[])
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
        SELECT q.slot, CASE WHEN EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time())
                            THEN coalesce(write_outcome_v1(s.state), 'moved') ELSE 'busy' END, s.peer, s.epoch
          FROM (SELECT DISTINCT slot FROM unnest(p_slots) AS u (slot)) q LEFT JOIN slots s USING (slot);
END $$;
