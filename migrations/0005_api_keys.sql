-- API keys, and the fenced functions that write them.
--
-- A key is stored in the slot of its id. Of its secret only the SHA-256 is kept. `limit_rate` is '' for the service's
-- default and 'none' for no limit.

CREATE TABLE api_keys (
    slot        smallint NOT NULL,
    key_id      text COLLATE "C" NOT NULL,
    xid         xid8     NOT NULL DEFAULT pg_current_xact_id(),
    name        text     NOT NULL,
    secret_hash bytea    NOT NULL,
    rights      text[]   NOT NULL,
    limit_rate  text     NOT NULL,
    created_at  timestamptz NOT NULL,
    revoked_at  timestamptz,
    PRIMARY KEY (slot, key_id)
);

CREATE FUNCTION key_add_v1(
    p_slot smallint, p_key_id text, p_name text, p_secret_hash bytea, p_rights text[], p_limit_rate text,
    p_created_at timestamptz, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO api_keys (slot, key_id, xid, name, secret_hash, rights, limit_rate, created_at)
         VALUES (p_slot, p_key_id, pg_current_xact_id(), p_name, p_secret_hash, p_rights, p_limit_rate,
                 p_created_at)
    ON CONFLICT (slot, key_id) DO NOTHING;
    -- A row with this secret was made by an earlier try of this call; one with another secret is another key.
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM api_keys k WHERE k.slot = p_slot AND k.key_id = p_key_id
                                    AND k.secret_hash = p_secret_hash) THEN
        outcome := 'taken';
    END IF;
END $$;

CREATE FUNCTION key_revoke_v1(
    p_slot smallint, p_key_id text, OUT outcome text, OUT peer text, OUT epoch bigint, OUT api_key api_keys
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, now()), xid = pg_current_xact_id()
     WHERE k.slot = p_slot AND k.key_id = p_key_id RETURNING k.* INTO api_key;
    IF NOT FOUND THEN outcome := 'missing'; END IF;
END $$;
