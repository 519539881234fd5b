-- Accounts get another name; giving a link to the account that has it changes nothing.

CREATE FUNCTION account_rename_v1(
    p_slot smallint, p_account_id text, p_name text,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT account accounts
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE accounts a SET name = p_name, xid = pg_current_xact_id()
     WHERE a.slot = p_slot AND a.account_id = p_account_id RETURNING a.* INTO account;
    IF NOT FOUND THEN outcome := 'missing'; END IF;
END $$;

-- As before, but a link that the account has already gets no new version, and so no entry in its history.
CREATE OR REPLACE FUNCTION link_transfer_v1(
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
    IF outcome <> 'ok' OR link.owner = p_account THEN RETURN; END IF;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = p_token,
                       created_by = coalesce(l.created_by, l.owner), changed_by = p_by, owner = p_account
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;
