-- History of links: who changed what, and when.
--
-- Every change of a link's row writes one row here, in the same transaction. The trigger that sets `changed_at` does so:
-- no function that changes links can forget it, and old workers' functions need not know. It leaves alone what a hand-off
-- copies. A create writes none; the link says itself when and by whom it was made.
--
-- A link keeps its newest 100 changes. `place` is the version of the link modulo 100, so a new row takes the place of the
-- one that is dropped: rows are not deleted, which a catch-up could not see. `fields` is an object of column -> [old, new].

CREATE TABLE link_history (
    slot       smallint NOT NULL,
    code       text COLLATE "C" NOT NULL,
    place      smallint NOT NULL CHECK (place BETWEEN 0 AND 99),
    xid        xid8     NOT NULL DEFAULT pg_current_xact_id(),
    version    bigint   NOT NULL,
    kind       text     NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text COLLATE "C" NOT NULL,
    fields     jsonb    NOT NULL,
    PRIMARY KEY (slot, code, place)
);

-- Of a text with more than 2,048 characters, the first of them and an ellipsis.
CREATE FUNCTION link_history_value_v1(p_value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN jsonb_typeof(p_value) = 'string' AND length(p_value #>> '{}') > 2048
                THEN to_jsonb(left(p_value #>> '{}', 2047) || '…') ELSE p_value END
$$;

-- What differs between two rows of a link. Of a password it is only said that it was set, changed or removed.
CREATE FUNCTION link_difference_v1(p_old links, p_new links) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
    SELECT coalesce(jsonb_object_agg(key, jsonb_build_array(link_history_value_v1(o.value), link_history_value_v1(n.value)))
                    FILTER (WHERE o.value <> n.value), '{}')
           || CASE WHEN (p_old).password_hash IS NOT DISTINCT FROM (p_new).password_hash THEN '{}'
                   ELSE jsonb_build_object('password', jsonb_build_array(NULL,
                       CASE WHEN (p_old).password_hash IS NULL THEN 'set'
                            WHEN (p_new).password_hash IS NULL THEN 'removed' ELSE 'changed' END)) END
      FROM jsonb_each(to_jsonb(p_old)) o JOIN jsonb_each(to_jsonb(p_new)) n USING (key)
     WHERE key NOT IN ('slot', 'code', 'xid', 'version', 'token', 'change_token', 'created_at', 'created_by',
                       'changed_at', 'changed_by', 'deleted_at', 'password_hash')
$$;

CREATE OR REPLACE FUNCTION link_changed_v1() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    INSERT INTO link_history AS h (slot, code, place, xid, version, kind, changed_at, changed_by, fields)
         VALUES (NEW.slot, NEW.code, NEW.version % 100, pg_current_xact_id(), NEW.version,
                 CASE WHEN OLD.deleted_at IS NULL AND NEW.deleted_at IS NOT NULL THEN 'delete'
                      WHEN OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NULL THEN 'restore'
                      WHEN OLD.owner <> NEW.owner THEN 'transfer'
                      ELSE 'change' END,
                 NEW.changed_at, coalesce(NEW.changed_by, ''), link_difference_v1(OLD, NEW))
    ON CONFLICT (slot, code, place) DO UPDATE SET
        xid = excluded.xid, version = excluded.version, kind = excluded.kind, changed_at = excluded.changed_at,
        changed_by = excluded.changed_by, fields = excluded.fields;
    RETURN NEW;
END $$;
