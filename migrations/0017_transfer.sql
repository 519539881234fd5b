-- Links change their account.

-- For `link_transfer_all_v1`: the index of the links that are not deleted has those of an account already.
CREATE INDEX links_deleted_of_owner ON links (owner) WHERE deleted_at IS NOT NULL;

-- Gives a link to another account, as `link_change_v2` changes one; `p_by` is the key that does so. A row without
-- `created_by` was made by the key whose own account was its owner.
CREATE FUNCTION link_transfer_v1(
    p_slot smallint, p_code text, p_if_match bigint, p_account text, p_by text, p_token uuid,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.* INTO link FROM links l WHERE l.slot = p_slot AND l.code = p_code FOR UPDATE;
    outcome := link_change_verdict_v1(link, p_if_match, NULL, p_token);
    IF outcome = 'done' THEN outcome := 'ok'; RETURN; END IF;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = p_token,
                       created_by = coalesce(l.created_by, l.owner), changed_by = p_by, owner = p_account
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;

-- Gives up to `p_limit` links of the account `p_from`, also deleted ones, to `p_to`: those in slots that accept writes
-- here. Returns how many.
CREATE FUNCTION link_transfer_all_v1(p_from text, p_to text, p_by text, p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off  -- use the indexes of the owner, also where one account has most links
AS $$
DECLARE
    found_slots smallint[];
    found_codes text[];
    given bigint;
BEGIN
    SELECT array_agg(q.slot), array_agg(q.code) INTO found_slots, found_codes FROM (
        (SELECT l.slot, l.code FROM links l JOIN slots s ON s.slot = l.slot AND write_outcome_v1(s.state) = 'ok'
          WHERE l.owner = p_from AND l.deleted_at IS NULL LIMIT p_limit)
        UNION ALL
        (SELECT l.slot, l.code FROM links l JOIN slots s ON s.slot = l.slot AND write_outcome_v1(s.state) = 'ok'
          WHERE l.owner = p_from AND l.deleted_at IS NOT NULL LIMIT p_limit)
        LIMIT p_limit) q;
    PERFORM slots_fence_v1(found_slots);
    -- In one order, so that two of these calls cannot deadlock.
    PERFORM FROM links l JOIN unnest(found_slots, found_codes) AS u (slot, code)
              ON l.slot = u.slot AND l.code = u.code COLLATE "C"
      ORDER BY l.slot, l.code FOR UPDATE OF l;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = gen_random_uuid(),
                       created_by = coalesce(l.created_by, l.owner), changed_by = p_by, owner = p_to
      FROM unnest(found_slots, found_codes) AS u (slot, code)
      JOIN slots s ON s.slot = u.slot AND write_outcome_v1(s.state) = 'ok'
     WHERE l.slot = u.slot AND l.code = u.code COLLATE "C" AND l.owner = p_from
       AND EXISTS (SELECT FROM cluster WHERE attested_start = pg_postmaster_start_time());
    GET DIAGNOSTICS given = ROW_COUNT;
    RETURN given;
END $$;
