-- API keys, and what an Idempotency-Key stands for.

-- A key lives in the slot of its id. Only the SHA-256 of its secret is kept. `limit_rate` is '' for the
-- service's default and 'none' for no limit.
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
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO api_keys (slot, key_id, xid, name, secret_hash, rights, limit_rate, created_at)
         VALUES (p_slot, p_key_id, pg_current_xact_id(), p_name, p_secret_hash, p_rights, p_limit_rate,
                 p_created_at)
    ON CONFLICT (slot, key_id) DO NOTHING;
    -- A row with another secret is another key; one with this secret is a repeat of this call.
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM api_keys k WHERE k.slot = p_slot AND k.key_id = p_key_id
                                    AND k.secret_hash = p_secret_hash) THEN
        outcome := 'taken';
    END IF;
END $$;

CREATE FUNCTION key_revoke_v1(
    p_slot smallint, p_key_id text, OUT outcome text, OUT peer text, OUT epoch bigint, OUT api_key api_keys
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE api_keys k SET revoked_at = coalesce(k.revoked_at, now()), xid = pg_current_xact_id()
     WHERE k.slot = p_slot AND k.key_id = p_key_id RETURNING k.* INTO api_key;
    IF NOT FOUND THEN outcome := 'missing'; END IF;
END $$;

-- The first request with an Idempotency-Key writes its intent here, before the create it is for. `nonce` fixes
-- the create's code and token, so every repeat within 24 hours performs the same create, which happens once.
-- `key_hash` is the hex SHA-256 of scope and key; the intent lives in the slot of that text.
CREATE TABLE intents (
    slot        smallint NOT NULL,
    key_hash    text COLLATE "C" NOT NULL,
    xid         xid8     NOT NULL DEFAULT pg_current_xact_id(),
    nonce       uuid     NOT NULL,
    fingerprint bytea    NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (slot, key_hash)
);
CREATE INDEX intents_oldest ON intents (created_at);

-- `p_items` is a JSON array of {place, slot, key_hash, nonce, fingerprint (hex)}; one answer row per item.
CREATE FUNCTION intent_claim_v1(p_items jsonb)
RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, nonce uuid, fingerprint bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE fences jsonb;
BEGIN
    SELECT jsonb_object_agg(f.slot, to_jsonb(f)) INTO fences
      FROM slots_fence_v1((SELECT array_agg((i ->> 'slot')::smallint) FROM jsonb_array_elements(p_items) i)) f;
    INSERT INTO intents AS n (slot, key_hash, xid, nonce, fingerprint, created_at)
         SELECT DISTINCT ON (i.slot, i.key_hash)
                i.slot, i.key_hash, pg_current_xact_id(), i.nonce, decode(i.fingerprint, 'hex'), now()
           FROM jsonb_to_recordset(p_items) AS i (
                    place integer, slot smallint, key_hash text, nonce uuid, fingerprint text)
          WHERE fences -> i.slot::text ->> 'outcome' = 'ok'
          ORDER BY i.slot, i.key_hash, i.place
    ON CONFLICT (slot, key_hash) DO UPDATE
        SET nonce = excluded.nonce, fingerprint = excluded.fingerprint, xid = excluded.xid, created_at = now()
      WHERE n.created_at < now() - interval '24 hours';
    RETURN QUERY
        SELECT i.place, fences -> i.slot::text ->> 'outcome', fences -> i.slot::text ->> 'peer',
               (fences -> i.slot::text ->> 'epoch')::bigint, n.nonce, n.fingerprint
          FROM jsonb_to_recordset(p_items) AS i (place integer, slot smallint, key_hash text)
          LEFT JOIN intents n ON n.slot = i.slot AND n.key_hash = i.key_hash COLLATE "C";
END $$;

-- Deletes up to `p_limit` intents older than 24 hours, only in slots that are plainly owned: a slot in
-- hand-off keeps its rows, since a row that vanishes between copy and verification would fail the hand-off.
CREATE FUNCTION intents_purge_v1(p_limit integer) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    dead smallint[];
    purged bigint;
BEGIN
    SELECT array_agg(q.slot) INTO dead FROM (
        SELECT n.slot FROM intents n WHERE n.created_at < now() - interval '24 hours'
         ORDER BY n.created_at LIMIT p_limit) q;
    PERFORM slots_fence_v1(dead);
    WITH gone AS (
        DELETE FROM intents n USING slots s
         WHERE n.slot = s.slot AND s.state = 'owned' AND n.slot = ANY (dead)
           AND n.created_at < now() - interval '24 hours' RETURNING 1)
    SELECT count(*) INTO purged FROM gone;
    RETURN purged;
END $$;
