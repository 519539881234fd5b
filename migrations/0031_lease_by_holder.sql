-- A migrator says how long its lease is: one with nothing to do renews it more rarely than one that moves slots.

ALTER TABLE migrator ADD COLUMN lease_ms integer NOT NULL DEFAULT 3000;

-- Takes or renews the lease for `p_holder`. Returns false while another holder's heartbeat is younger than the lease of
-- that holder. `p_lease_ms` is that of `p_holder`.
CREATE FUNCTION migrator_lease_v2(p_holder uuid, p_lease_ms integer, p_status text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO migrator AS m (holder, heartbeat_at, status, lease_ms)
         VALUES (p_holder, clock_timestamp(), p_status, p_lease_ms)
    ON CONFLICT (only_row) DO UPDATE
        SET holder = excluded.holder, heartbeat_at = excluded.heartbeat_at, status = excluded.status,
            lease_ms = excluded.lease_ms
      WHERE m.holder = excluded.holder
         OR m.heartbeat_at < clock_timestamp() - make_interval(secs => m.lease_ms / 1000.0);
    RETURN FOUND;
END $$;
