-- Links that were renamed: their old code says to which code.
--
-- Both codes can be in slots of different shards, so no transaction holds both: `snapurl/renames.py` has the protocol. This
-- is its last step.

ALTER TABLE links ADD COLUMN renamed_to text COLLATE "C";

-- Marks a link as renamed to the code `p_new`, as `link_change_v2` changes one. `p_give_up` makes the row a tombstone.
CREATE FUNCTION link_rename_v1(
    p_slot smallint, p_code text, p_if_match bigint, p_owner text, p_by text, p_token uuid, p_new text, p_give_up boolean,
    OUT outcome text, OUT peer text, OUT epoch bigint, OUT link links
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    SELECT l.* INTO link FROM links l WHERE l.slot = p_slot AND l.code = p_code FOR UPDATE;
    outcome := link_change_verdict_v1(link, p_if_match, p_owner, p_token);
    IF outcome = 'done' THEN outcome := 'ok'; RETURN; END IF;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE links l SET xid = pg_current_xact_id(), version = l.version + 1, change_token = p_token, changed_by = p_by,
                       renamed_to = p_new, deleted_at = CASE WHEN p_give_up THEN clock_timestamp() END
     WHERE l.slot = p_slot AND l.code = p_code RETURNING l.* INTO link;
END $$;

-- As before, with renames.
CREATE OR REPLACE FUNCTION link_changed_v1() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    INSERT INTO link_history AS h (slot, code, place, xid, version, kind, changed_at, changed_by, fields)
         VALUES (NEW.slot, NEW.code, NEW.version % 100, pg_current_xact_id(), NEW.version,
                 CASE WHEN OLD.renamed_to IS DISTINCT FROM NEW.renamed_to THEN 'rename'
                      WHEN OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN 'delete'
                      WHEN OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL THEN 'restore'
                      WHEN OLD.owner <> NEW.owner THEN 'transfer'
                      ELSE 'change' END,
                 NEW.changed_at, coalesce(NEW.changed_by, ''), link_difference_v1(OLD, NEW))
    ON CONFLICT (slot, code, place) DO UPDATE SET
        xid = excluded.xid, version = excluded.version, kind = excluded.kind, changed_at = excluded.changed_at,
        changed_by = excluded.changed_by, fields = excluded.fields;
    RETURN NEW;
END $$;
