-- Ownership: which slots this shard holds, and the fence that every write passes.
--
-- A missing row means "not mine". `epoch` grows by one with every hand-off, so that of two claims to a slot
-- the higher one is the newer. `peer` is where a released slot went (whose `epoch` is then the
-- new owner's), or whom a slot in hand-off goes to or comes from. `move_token` names the hand-off under way.

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

-- A counter that grows with every statement that changes `slots`. Updating its row first serialises such
-- transactions, so versions become visible in order: a reader that has seen version N misses nothing <= N.
CREATE TABLE ownership (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version  bigint NOT NULL
);
INSERT INTO ownership (version) VALUES (0);

CREATE FUNCTION slots_next_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE next_version bigint;
BEGIN
    UPDATE ownership SET version = version + 1 RETURNING version INTO next_version;
    PERFORM pg_notify('snapurl_slots', next_version::text);
    RETURN NULL;
END $$;

CREATE FUNCTION slots_stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT version INTO STRICT NEW.version FROM ownership;
    NEW.changed_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER slots_1_next_version BEFORE INSERT OR UPDATE OR DELETE ON slots
    FOR EACH STATEMENT EXECUTE FUNCTION slots_next_version();
CREATE TRIGGER slots_2_stamp BEFORE INSERT OR UPDATE ON slots
    FOR EACH ROW EXECUTE FUNCTION slots_stamp();

-- What a state means to a write and to a read: 'ok', 'busy' (ask again in a moment) or 'moved' (ask the peer). A slot
-- that is being imported is still the peer's, at the epoch in the row.
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

-- The fence of one slot. The shared lock is taken in one statement and the state read in the next: under READ
-- COMMITTED that second statement has a snapshot from after the lock was granted, so whatever a freeze (which
-- holds the exclusive lock) has committed is seen. One statement for both would read a state from before it.
CREATE FUNCTION slot_fence_v1(p_slot smallint, OUT outcome text, OUT peer text, OUT epoch bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'fenced writes need READ COMMITTED';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(1397637456, p_slot);
    SELECT write_outcome_v1(s.state), s.peer, s.epoch INTO outcome, peer, epoch
      FROM slots s WHERE s.slot = p_slot;
    outcome := coalesce(outcome, 'moved');
END $$;

-- The fence of many slots: locks in ascending order (a freeze does the same, so they cannot deadlock).
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
        SELECT q.slot, coalesce(write_outcome_v1(s.state), 'moved'), s.peer, s.epoch
          FROM (SELECT DISTINCT slot FROM unnest(p_slots) AS u (slot)) q LEFT JOIN slots s USING (slot);
END $$;
