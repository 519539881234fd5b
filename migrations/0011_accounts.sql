-- Accounts: teams, to which links belong and whose keys share them.
--
-- `links.owner` is the id of an account. A key with the account '' has one of its own, whose id is the key's: so each
-- link that a key made before there were accounts belongs to that key's account. Only accounts that were made as such
-- have a row here. An account is stored in the slot of its id.

CREATE TABLE accounts (
    slot       smallint NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    xid        xid8     NOT NULL DEFAULT pg_current_xact_id(),
    name       text     NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text     NOT NULL,
    PRIMARY KEY (slot, account_id)
);

-- `p_created_by` is the id of a key, or '' for the command line. A row with this name and time was made by an earlier
-- try of this call.
CREATE FUNCTION account_add_v1(
    p_slot smallint, p_account_id text, p_name text, p_created_at timestamptz, p_created_by text,
    OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO accounts (slot, account_id, xid, name, created_at, created_by)
         VALUES (p_slot, p_account_id, pg_current_xact_id(), p_name, p_created_at, p_created_by)
    ON CONFLICT (slot, account_id) DO NOTHING;
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.slot = p_slot AND a.account_id = p_account_id
                                    AND a.name = p_name AND a.created_at = p_created_at) THEN
        outcome := 'taken';
    END IF;
END $$;

-- `used_at` is when the key was last used, an hour behind at most; null if never.
ALTER TABLE api_keys
    ADD COLUMN account    text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN created_by text NOT NULL DEFAULT '',
    ADD COLUMN used_at    timestamptz;

CREATE FUNCTION key_add_v2(
    p_slot smallint, p_key_id text, p_name text, p_secret_hash bytea, p_rights text[], p_limit_rate text,
    p_created_at timestamptz, p_account text, p_created_by text, OUT outcome text, OUT peer text, OUT epoch bigint
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    INSERT INTO api_keys (slot, key_id, xid, name, secret_hash, rights, limit_rate, created_at, account, created_by)
         VALUES (p_slot, p_key_id, pg_current_xact_id(), p_name, p_secret_hash, p_rights, p_limit_rate,
                 p_created_at, p_account, p_created_by)
    ON CONFLICT (slot, key_id) DO NOTHING;
    -- A row with this secret was made by an earlier try of this call; one with another secret is another key.
    IF NOT FOUND AND NOT EXISTS (SELECT 1 FROM api_keys k WHERE k.slot = p_slot AND k.key_id = p_key_id
                                    AND k.secret_hash = p_secret_hash) THEN
        outcome := 'taken';
    END IF;
END $$;

-- Notes that a key is in use; at most one write an hour, however often it is called.
CREATE FUNCTION key_used_v1(p_slot smallint, p_key_id text, OUT outcome text, OUT peer text, OUT epoch bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    SELECT f.outcome, f.peer, f.epoch INTO outcome, peer, epoch FROM slot_fence_v1(p_slot) f;
    IF outcome <> 'ok' THEN RETURN; END IF;
    UPDATE api_keys k SET used_at = now(), xid = pg_current_xact_id()
     WHERE k.slot = p_slot AND k.key_id = p_key_id
       AND (k.used_at IS NULL OR k.used_at < now() - interval '1 hour');
END $$;

-- The service may call account_* too.
CREATE OR REPLACE FUNCTION grant_roles_v1() RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = public, pg_temp AS $$
DECLARE
    wanted text;
    fenced regprocedure;
    made regclass;
BEGIN
    FOREACH wanted IN ARRAY '{snapurl_service,snapurl_migrator}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RETURN format('role %s is missing and this user may not create it', wanted);
            END;
        END IF;
    END LOOP;
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    GRANT USAGE ON SCHEMA public TO snapurl_service, snapurl_migrator;
    FOR fenced IN SELECT oid::regprocedure FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace AND proname ~ '_v[0-9]+$'
                     AND proname <> 'migrator_rights_v1' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', fenced);
        IF fenced::text NOT LIKE 'grant_roles_v1(%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_migrator', fenced);
        END IF;
        IF fenced::text ~ '^(account|link|key|intent|intents|clicks|shard|read_outcome|write_outcome)_' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_service', fenced);
        END IF;
    END LOOP;
    FOR made IN SELECT t.oid::regclass FROM pg_class t WHERE t.relnamespace = 'public'::regnamespace
                   AND t.relkind = 'r' AND pg_has_role(current_user, t.relowner, 'USAGE') LOOP
        EXECUTE format('GRANT SELECT ON %s TO snapurl_service, snapurl_migrator', made);
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = made AND attname = 'slot' AND NOT attisdropped) THEN
            EXECUTE format('GRANT INSERT, UPDATE, DELETE ON %s TO snapurl_migrator', made);
        END IF;
    END LOOP;
    GRANT INSERT ON cluster, topology TO snapurl_migrator;
    GRANT UPDATE ON ownership TO snapurl_migrator;
    GRANT INSERT, UPDATE ON migrator, audit TO snapurl_migrator;
    RETURN 'granted';
END $$;
