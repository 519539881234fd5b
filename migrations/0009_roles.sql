-- Roles: what the service and the migrator may do in this database.
--
-- The operator makes the login users and gives them rights by `GRANT snapurl_service TO …` or `GRANT snapurl_migrator
-- TO …`. The service reads tables and calls the fenced functions, which run with the rights of the tables' owner: a
-- holder of its password can neither write around the fence nor change the state of a slot. The migrator copies and
-- deletes rows itself, so it may write the tables, but not the schema nor the record of migrations.

-- Grants the rights; repeatable. Returns 'granted', or what prevents it.
--
-- The rights follow from the kind of an object, so that a later migration has to grant nothing by name. The migrator
-- may write a table that has a column `slot`, and call every function. The service may call a function whose name
-- begins with what it writes for clients. Nobody but the owner may create in the schema (PostgreSQL 14 lets
-- everybody): such a user could have the functions that run as the owner call its own.
--
-- Roles belong to the whole server, so they may exist already. If the migrating user may not create them, a superuser
-- does, and `snapurl migrate` calls this function again, as it does after every migration.
CREATE FUNCTION grant_roles_v1() RETURNS text LANGUAGE plpgsql VOLATILE SET search_path = public, pg_temp AS $$
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
        IF fenced::text ~ '^(link|key|intent|intents|clicks|shard|read_outcome|write_outcome)_' THEN
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

-- Which rights of a migrator this user lacks, as `INSERT ON links`, and the statement that grants them; which other
-- users are migrators, and whether the owner may terminate their sessions. Everybody may call it.
CREATE FUNCTION migrator_rights_v1(
    OUT migrator text, OUT owner text, OUT missing text[], OUT remedy text, OUT other_migrators text[],
    OUT may_end boolean
) LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    WITH own AS (
        SELECT relowner AS id, pg_get_userbyid(relowner) AS name FROM pg_class WHERE oid = 'links'::regclass
    ), needed AS (
        SELECT format('%s ON %I', r.privilege, t.relname) AS needed, has_table_privilege(t.oid, r.privilege) AS given
          FROM pg_class t CROSS JOIN unnest(CASE
                   WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = t.oid AND attname = 'slot'
                                   AND NOT attisdropped) THEN '{SELECT,INSERT,UPDATE,DELETE}'::text[]
                   WHEN t.relname IN ('migrator', 'audit') THEN '{SELECT,INSERT,UPDATE}'
                   WHEN t.relname IN ('topology', 'cluster') THEN '{SELECT,INSERT}'
                   WHEN t.relname = 'ownership' THEN '{SELECT,UPDATE}'
                   WHEN t.relname = 'schema_migrations' THEN '{SELECT}'
                   ELSE '{}' END) AS r (privilege)
         WHERE t.relnamespace = 'public'::regnamespace AND t.relkind = 'r'
        UNION ALL
        SELECT format('EXECUTE ON FUNCTION %s', p.oid::regprocedure), has_function_privilege(p.oid, 'EXECUTE')
          FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname ~ '^(handoff|migrator)_.*_v[0-9]+$'
        UNION ALL
        SELECT format('TEMPORARY ON DATABASE %I', current_database()),
               has_database_privilege(current_database(), 'TEMPORARY')
    ), lost AS (
        SELECT coalesce(array_agg(n.needed ORDER BY n.needed) FILTER (WHERE NOT n.given), '{}') AS missing FROM needed n
    )
    SELECT current_user::text, own.name::text, lost.missing,
           CASE WHEN lost.missing = '{}' THEN NULL
                WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'snapurl_migrator')
                 AND NOT pg_has_role(current_user, (SELECT oid FROM pg_roles WHERE rolname = 'snapurl_migrator'), 'USAGE')
                THEN format('GRANT snapurl_migrator TO %I', current_user)
                ELSE format('GRANT %s TO %I', lost.missing[1], current_user) END,
           ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolcanlogin AND NOT r.rolsuper
                    AND r.rolname <> current_user AND r.oid <> own.id
                    AND pg_has_role(r.oid, (SELECT oid FROM pg_roles WHERE rolname = 'snapurl_migrator'), 'MEMBER')
                  ORDER BY 1),
           pg_has_role(own.id, 'pg_signal_backend', 'USAGE')
      FROM own CROSS JOIN lost
$$;

DO $$
BEGIN
    RAISE NOTICE 'roles: %', grant_roles_v1();
END $$;
