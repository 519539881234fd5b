-- The identity of a shard, the cluster's topologies, and which start of the server may serve.
--
-- Bootstrap: the shard whose name sorts first gets its row of `cluster` in state 'initialising', together with the
-- first topology, before any other shard is written. The row becomes 'ready' when all shards have theirs. The next
-- start reads this record and completes an interrupted first start.
--
-- Attestation: `ring/restarts.py` has the theory. A server that restarts may have lost transactions: a standby was
-- promoted, or an older backup restored. In both cases its postmaster start time differs from `attested_start`. The
-- shard then serves nothing until the service or the operator has compared its `slots` with those of the other shards
-- and called shard_attest_v1(). A plain restart looks the same and takes the same path.

-- The timeline to which this server writes; null on a standby.
CREATE FUNCTION shard_timeline_v1() RETURNS bigint LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN NOT pg_is_in_recovery()
                THEN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint END
$$;

-- One row. The defaults attest a shard when its row is inserted: a new shard cannot have lost anything.
CREATE TABLE cluster (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster_id        uuid        NOT NULL,
    shard             text        NOT NULL,
    state             text        NOT NULL CHECK (state IN ('initialising', 'ready')),
    initialised_at    timestamptz NOT NULL DEFAULT now(),
    attested_start    timestamptz DEFAULT pg_postmaster_start_time(),
    attested_timeline bigint      DEFAULT shard_timeline_v1()
);

-- Every published topology. The highest version found on any shard is the current one. The document never holds a
-- password.
CREATE TABLE topology (
    version      bigint PRIMARY KEY CHECK (version > 0),
    document     text        NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION topology_notify_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('snapurl_topology', NEW.version::text);
    RETURN NULL;
END $$;

CREATE TRIGGER topology_notify AFTER INSERT ON topology FOR EACH ROW EXECUTE FUNCTION topology_notify_v1();

-- The newest timeline on which each other shard was seen. A server on an older timeline is one that was replaced.
CREATE TABLE peer_logs (
    shard    text PRIMARY KEY,
    timeline bigint      NOT NULL,
    seen_at  timestamptz NOT NULL DEFAULT now()
);

-- Attests the running server, if `p_started` is its start time. Returns false if the server has restarted since the
-- caller compared it.
CREATE FUNCTION shard_attest_v1(p_started timestamptz) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE cluster SET attested_start = p_started, attested_timeline = shard_timeline_v1()
     WHERE pg_postmaster_start_time() = p_started;
    IF FOUND THEN
        PERFORM pg_notify('snapurl_slots', 'attested');
    END IF;
    RETURN FOUND;
END $$;

-- Records the timeline of another shard. Returns the newest timeline recorded for that shard.
CREATE FUNCTION shard_peer_seen_v1(p_shard text, p_timeline bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE newest bigint;
BEGIN
    INSERT INTO peer_logs AS p (shard, timeline) VALUES (p_shard, p_timeline)
    ON CONFLICT (shard) DO UPDATE SET timeline = greatest(p.timeline, excluded.timeline), seen_at = now()
    RETURNING p.timeline INTO newest;
    RETURN newest;
END $$;
