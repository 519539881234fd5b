-- Public links to statistics: whoever has the secret reads the statistics of a link without a key.
--
-- The row stays when the secret is revoked: a catch-up of a hand-off finds rows that changed, and no deleted ones.
CREATE TABLE link_shares (
    slot    smallint    NOT NULL,
    code    text        COLLATE "C" NOT NULL,
    xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    secret  text,
    made_at timestamptz NOT NULL,
    made_by text        NOT NULL,
    PRIMARY KEY (slot, code)
);

-- Makes the public link of a link that is not deleted, or leaves the one that there is; without `p_secret` revokes it.
-- `p_owner` null: the link of any account. Returns the row as it is then; nulls if there is none, or it is revoked.
CREATE FUNCTION link_share_v1(
    p_slot smallint, p_code text, p_owner text, p_secret text, p_by text,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT secret text, OUT made_at timestamptz, OUT made_by text
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    PERFORM FROM links l WHERE l.slot = p_slot AND l.code = p_code AND l.owner = coalesce(p_owner, l.owner)
                           AND (l.deleted_at IS NULL OR p_secret IS NULL);
    IF NOT FOUND THEN outcome := 'missing'; RETURN; END IF;
    IF p_secret IS NULL THEN
        UPDATE link_shares s SET secret = NULL, xid = pg_current_xact_id()
         WHERE s.slot = p_slot AND s.code = p_code AND s.secret IS NOT NULL;
        RETURN;
    END IF;
    INSERT INTO link_shares AS s (slot, code, xid, secret, made_at, made_by)
         VALUES (p_slot, p_code, pg_current_xact_id(), p_secret, clock_timestamp(), p_by)
    ON CONFLICT (slot, code) DO UPDATE SET
        secret = excluded.secret, made_at = excluded.made_at, made_by = excluded.made_by, xid = excluded.xid
     WHERE s.secret IS NULL;
    SELECT s.secret, s.made_at, s.made_by INTO STRICT secret, made_at, made_by
      FROM link_shares s WHERE s.slot = p_slot AND s.code = p_code;
END $$;
