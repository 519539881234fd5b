-- Roles: what the service and the migrator may do in this database.
--
-- Login users are the operator's; they get rights by `GRANT snapurl_service TO …` or `GRANT snapurl_migrator TO …`.
-- The service reads tables and calls the fenced functions, and these run with the rights of the tables' owner: so
-- nothing that holds its password can write around the fence or change the state of a slot. The migrator copies
-- and deletes rows itself, so it has the tables, but not the schema nor the record of migrations.
--
-- Roles belong to the whole server, so they may be there already. Where the migrating user may not create them, a
-- superuser makes the two, and `snapurl migrate` gives them their rights when it is run again. It calls
-- grant_roles_v1() after every migration, so that a later one needs to name only what is not of a kind below.

-- Repeatable. The rights follow from what things are: rows that move with their slot are the migrator's to copy and
-- delete, and a function that is named after what it writes for clients is the service's to call. Whoever may create
-- in the schema could have the functions that run as the owner call his own, so nobody else may (PostgreSQL 14).
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

-- ---- what the migrator may only do through the owner ------------------------------------------------------------
--
-- PostgreSQL lets a user end sessions, and see standbys and what others' sessions do, only if they are of the same
-- user, or by pg_signal_backend and pg_read_all_stats, which reach over the whole server. So it is the tables' owner
-- who needs these two, and only where several users work as migrators; the migrator reaches no further than this.

-- Ends a session that has the mark of a hand-off on slots of this database, and no other. One that is gone is as good.
CREATE FUNCTION handoff_end_v1(p_pid integer) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_terminate_backend(l.pid) FROM pg_locks l
      WHERE l.pid = p_pid AND l.locktype = 'advisory' AND l.granted AND l.classid = 1213156420 AND l.objsubid = 2
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'session % of another migrator holds the slots, and % may not end it', p_pid, current_user
        USING ERRCODE = 'insufficient_privilege',
              HINT = format('GRANT pg_signal_backend TO %I, or as a superuser SELECT pg_terminate_backend(%s)',
                            current_user, p_pid);
END $$;

-- As before, but a session that is not of this user is ended by the owner.
CREATE OR REPLACE FUNCTION handoff_evict_v1(p_slots smallint[], p_epochs bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE stale integer;
BEGIN
    FOR stale IN
        SELECT DISTINCT l.pid FROM pg_locks l
          JOIN unnest(p_slots, p_epochs) AS u (slot, epoch) ON l.objid::bigint = u.slot
          JOIN slots s ON s.slot = u.slot AND s.epoch <= u.epoch
         WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND l.classid = 1213156420 AND l.objsubid = 2
    LOOP
        BEGIN
            PERFORM pg_terminate_backend(stale);
        EXCEPTION WHEN insufficient_privilege THEN
            PERFORM handoff_end_v1(stale);
        END;
    END LOOP;
END $$;

-- Seconds by which the slowest standby lags, as far as the owner may see it. `hidden` standbys are those of which he
-- may not.
CREATE FUNCTION standby_lag_v1(OUT lag_s double precision, OUT hidden bigint) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8, count(*) FILTER (WHERE state IS NULL)
      FROM pg_stat_replication
$$;

-- Transactions in this database that have done nothing for at least `p_age_s`.
CREATE FUNCTION idle_transactions_v1(p_age_s double precision)
RETURNS TABLE (pid integer, who text, age_s double precision) LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.pid, a.usename::text, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
      FROM pg_stat_activity a
     WHERE a.datname = current_database() AND a.state = 'idle in transaction'
       AND a.xact_start < clock_timestamp() - make_interval(secs => p_age_s)
$$;

-- What this user may not do of what a migrator has to, as `INSERT ON links`, and how he would get it; which other users
-- are migrators, and whether the owner may end their sessions for this one. Everybody may ask.
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
