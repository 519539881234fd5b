-- The migrator's lease and status, what it observes of the server, and the audit log of the operator's commands.

-- The active migrator and the status that it reports. Losing or duplicating this row affects the pace alone.
CREATE TABLE migrator (
    only_row     boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    holder       uuid        NOT NULL,
    heartbeat_at timestamptz NOT NULL,
    status       text        NOT NULL
);

-- Takes or renews the lease for `p_holder`. Returns false while another holder's heartbeat is younger than
-- `p_lease_ms`.
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

-- ---- what the migrator sees as the owner ------------------------------------------------------------------------
--
-- PostgreSQL shows a user the standbys and other users' sessions only as a member of pg_read_all_stats, which covers
-- the whole server. So the tables' owner needs that membership, and the migrator sees no more than these functions
-- return.

-- `lag_s` is the lag of the slowest standby that the owner may see; `hidden` is the number of standbys that it may
-- not.
CREATE FUNCTION standby_lag_v1(OUT lag_s double precision, OUT hidden bigint) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8, count(*) FILTER (WHERE state IS NULL)
      FROM pg_stat_replication
$$;

-- Transactions in this database that have been open for at least `p_age_s` and are idle.
CREATE FUNCTION idle_transactions_v1(p_age_s double precision)
RETURNS TABLE (pid integer, who text, age_s double precision) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.pid, a.usename::text, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.state = 'idle in transaction'
       AND a.xact_start < clock_timestamp() - make_interval(secs => p_age_s)
$$;
