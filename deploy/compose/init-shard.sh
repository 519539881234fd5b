#!/bin/sh
# Prepares the database of one shard: creates the logins, with the passwords from the secrets, and the tables.
#
# PostgreSQL's image runs it once, on an empty volume. It may be run again at any time. Run it by hand after a change
# of a password:
#
#   docker compose exec db0 sh /docker-entrypoint-initdb.d/snapurl.sh
#
# snapurl_owner owns the database and its tables and is no superuser; `snapurl migrate` logs in as this user.
# snapurl_api is the user of the service and the click consumer, snapurl_resharder that of the migrator;
# migrations/0009_roles.sql grants their rights. An empty database gets the tables of this release, because the migrator
# may not create tables but must be able to add the database as a shard. Only `snapurl migrate` applies later releases.
( # in a shell of its own: the image may read this file into its own
set -eu
export SECRETS="${SECRETS:-/run/secrets}"
migrations=${MIGRATIONS:-/usr/share/snapurl/migrations}

for name in superuser owner service migrator; do
    if ! [ -s "$SECRETS/${name}_password" ]; then
        echo "init-shard: the secret in $SECRETS/${name}_password is missing or empty" >&2
        exit 1
    fi
done

options=${PGOPTIONS:-}
sql() { PGOPTIONS=$options psql --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1 \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"; }

unlogged="-c log_statement=none -c log_min_duration_statement=-1 -c log_min_error_statement=panic"
# psql reads passwords from files, not from arguments, and the server logs no statement that contains one.
options="$options $unlogged"
sql --single-transaction <<'SQL'
SET client_min_messages = 'warning';
\set VERBOSITY terse
\set owner_password `sed 's/\r$//' "$SECRETS/owner_password"`
\set service_password `sed 's/\r$//' "$SECRETS/service_password"`
\set migrator_password `sed 's/\r$//' "$SECRETS/migrator_password"`

SELECT format('CREATE ROLE %I', wanted)
  FROM unnest('{snapurl_service,snapurl_migrator,snapurl_owner,snapurl_api,snapurl_resharder}'::text[]) AS wanted
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
\gexec
ALTER ROLE snapurl_owner LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD :'owner_password';
ALTER ROLE snapurl_api LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD :'service_password';
ALTER ROLE snapurl_resharder LOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB PASSWORD :'migrator_password';
GRANT snapurl_service TO snapurl_api;
GRANT snapurl_migrator TO snapurl_resharder;
-- For ending what another migrator's login left hanging, and for seeing standbys: 0009_roles.sql says how.
GRANT pg_signal_backend, pg_read_all_stats TO snapurl_owner;

ALTER DATABASE :"DBNAME" OWNER TO snapurl_owner;
REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO snapurl_service;
GRANT CONNECT, TEMPORARY ON DATABASE :"DBNAME" TO snapurl_migrator;

-- Tables and functions that a superuser made in an earlier release.
SELECT format('ALTER TABLE %s OWNER TO snapurl_owner', oid::regclass)
  FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relowner <> 'snapurl_owner'::regrole
UNION ALL
SELECT format('ALTER ROUTINE %s OWNER TO snapurl_owner', oid::regprocedure)
  FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner <> 'snapurl_owner'::regrole
\gexec
SQL

options=${PGOPTIONS:-}
relations=$(sql -c "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
if [ "$relations" = 0 ]; then
    # Applied and recorded as `snapurl migrate` does it, so that it finds nothing left to do.
    set -- -c "CREATE TABLE schema_migrations (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now())"
    for file in "$migrations"/[0-9][0-9][0-9][0-9]_*.sql; do
        base=$(basename "$file" .sql)
        checksum=$(sha256sum < "$file")
        set -- "$@" -f "$file" -c "INSERT INTO schema_migrations (version, name, checksum)
            VALUES (${base%%_*}, '${base#*_}', '${checksum%% *}')"
    done
    sql --single-transaction -c "SET client_min_messages = 'warning'" -c "SET ROLE snapurl_owner" "$@" > /dev/null
fi

# The roles have their rights now, whichever user created the tables.
ours=$(sql -c "SELECT to_regproc('grant_roles_v1') IS NOT NULL")
if [ "$ours" = t ]; then
    said=$(sql -c "SET ROLE snapurl_owner" -c "SELECT grant_roles_v1()")
    [ "$said" = granted ] || { echo "init-shard: $said" >&2; exit 1; }
fi

# Last, because a login may have brought this session here with its old password.
options="$options $unlogged"
sql <<'SQL'
\set VERBOSITY terse
\set superuser_password `sed 's/\r$//' "$SECRETS/superuser_password"`
ALTER ROLE :"USER" PASSWORD :'superuser_password';
SQL
)
