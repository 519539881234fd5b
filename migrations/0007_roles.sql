-- Roles: what the service and the migrator may do in this database.
--
-- Login users are the operator's; they get rights by `GRANT snapurl_service TO …` or `GRANT snapurl_migrator TO …`.
-- The service reads tables and calls the fenced functions, and these run with the rights of the tables' owner: so
-- nothing that holds its password can write around the fence or change the state of a slot. The migrator copies
-- and deletes rows itself, so it has the tables, but not the schema nor the record of migrations.
--
-- Roles belong to the whole server, so they may be there already. Where the migrating user may not create them, a
-- superuser makes the two, and the owner of the tables calls `SELECT grant_roles_v1()` then; it may be repeated.

CREATE FUNCTION grant_roles_v1() RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = public, pg_temp AS $$
DECLARE
    wanted text;
    fenced regprocedure;
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
    FOR fenced IN SELECT oid::regprocedure FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace AND proname ~ '_v[0-9]+$' LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', fenced);
        IF fenced::text NOT LIKE 'grant_roles_v1(%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_migrator', fenced);
        END IF;
        IF fenced::text ~ '^(link|key|intent|intents|clicks|read_outcome|write_outcome)_' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO snapurl_service', fenced);
        END IF;
    END LOOP;
    GRANT USAGE ON SCHEMA public TO snapurl_service, snapurl_migrator;
    GRANT SELECT ON cluster, topology, slots, ownership, links, click_days, click_cursor, api_keys, intents,
                    migrator, schema_migrations TO snapurl_service;
    GRANT SELECT, INSERT, UPDATE, DELETE ON slots, links, click_days, click_cursor, api_keys, intents, migrator
       TO snapurl_migrator;
    GRANT SELECT, UPDATE ON ownership TO snapurl_migrator;
    GRANT SELECT, INSERT, UPDATE ON topology, audit TO snapurl_migrator;
    GRANT SELECT ON cluster, schema_migrations TO snapurl_migrator;
    RETURN 'granted';
END $$;

DO $$
DECLARE called regprocedure;
BEGIN
    FOR called IN SELECT oid::regprocedure FROM pg_proc
                   WHERE pronamespace = 'public'::regnamespace
                     AND proname ~ '^(link_create|link_create_many|link_change|key_add|key_revoke|intent_claim|intents_purge|clicks_apply)_v1$'
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = public, pg_temp', called);
    END LOOP;
    RAISE NOTICE 'roles: %', grant_roles_v1();
END $$;
