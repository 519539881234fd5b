-- A deleted link can be restored for 30 days. After that its code answers 410 for ever.

-- As `link_change_v1`. A link that is not deleted is answered as it is, so a restore may be repeated.
CREATE FUNCTION link_restore_v1(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_token uuid,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.* INTO link FROM links l WHERE l.slot = p_slot AND l.code = p_code FOR UPDATE;
    outcome := CASE WHEN link.code IS NULL THEN 'missing'
                    WHEN link.owner <> p_owner THEN 'forbidden'
                    WHEN link.change_token = p_token THEN 'ok'
                    WHEN link.deleted_at < clock_timestamp() - interval '30 days' THEN 'gone'
                    WHEN link.version <> p_if_match THEN 'mismatch'
                    ELSE 'ok' END;
    IF outcome <> 'ok' OR link.deleted_at IS NULL THEN RETURN; END IF;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = p_token, deleted_at = NULL
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;
