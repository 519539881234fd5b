-- Uses: how often a link with `max_clicks` has redirected.
--
-- The count of clicks cannot bound anything: it is behind, and no worker knows the clicks of the others. So the owner of
-- the slot gives each use of such a link, under the fence, and counts it in the same transaction. If the reply is lost,
-- its uses are gone: there may be fewer redirects than `max_clicks`, never more.

CREATE TABLE link_uses (
    slot smallint NOT NULL,
    code text COLLATE "C" NOT NULL,
    xid  xid8     NOT NULL DEFAULT pg_current_xact_id(),
    used bigint   NOT NULL,
    PRIMARY KEY (slot, code)
);

-- Gives up to `p_wanted` uses of a link that has version `p_version`; 'changed' if it has another. Returns how many were
-- given, and how many are left after that. Without `p_wanted` it only tells what is left.
--
-- The row of `link_uses` is locked before it is read, so that no two calls give the same use. Once no use is left, a call
-- neither locks nor writes anything: those are the calls of a link that many want.
CREATE FUNCTION link_use_v1(
    p_slot smallint, p_code text, p_version bigint, p_wanted bigint,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT given bigint, OUT uses_left bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    most bigint;
    before bigint;
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.max_clicks, coalesce(u.used, 0) INTO most, before
      FROM links l LEFT JOIN link_uses u ON u.slot = l.slot AND u.code = l.code
     WHERE l.slot = p_slot AND l.code = p_code AND l.version = p_version AND l.deleted_at IS NULL;
    IF most IS NULL THEN outcome := 'changed'; RETURN; END IF;
    given := 0;
    IF p_wanted > 0 AND before < most THEN
        INSERT INTO link_uses (slot, code, xid, used) VALUES (p_slot, p_code, pg_current_xact_id(), 0)
        ON CONFLICT (slot, code) DO NOTHING;
        SELECT u.used INTO STRICT before FROM link_uses u WHERE u.slot = p_slot AND u.code = p_code FOR UPDATE;
        given := greatest(0, least(p_wanted, most - before));
        UPDATE link_uses u SET used = u.used + given, xid = pg_current_xact_id()
         WHERE u.slot = p_slot AND u.code = p_code AND given > 0;
    END IF;
    uses_left := greatest(0, most - before - given);
END $$;
