-- What each Idempotency-Key stands for.
--
-- The first request with a key writes an intent here before it creates its link. `nonce` determines the code and the
-- token of the create, so every repeat within 24 hours performs the same create, which happens once. `key_hash` is
-- the hex SHA-256 of scope and key; the intent is stored in the slot of that text.

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

-- `p_items` is a JSON array of {place, slot, key_hash, nonce, fingerprint (hex)}. Returns one row per item.
CREATE FUNCTION intent_claim_v1(p_items jsonb)
RETURNS TABLE (place integer, outcome text, peer text, epoch bigint, nonce uuid, fingerprint bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
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

-- Deletes up to `p_limit` intents older than 24 hours, in slots in state 'owned' alone. A slot in hand-off keeps its
-- rows: a row that disappears between copy and verification would fail the hand-off.
CREATE FUNCTION intents_purge_v1(p_limit integer) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
