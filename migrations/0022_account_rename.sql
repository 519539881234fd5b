-- Accounts get another name.

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
