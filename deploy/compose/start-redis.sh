#!/bin/sh
# Starts Redis with the password from a secret. The password goes through stdin: every user of the machine can read
# arguments, and `docker inspect` shows arguments and environment.
set -eu
secret=${SECRETS:-/run/secrets}/redis_password
if ! [ -s "$secret" ]; then
    echo "start-redis: the secret in $secret is missing or empty" >&2
    exit 1
fi
password=$(sed 's/\r$//; s/[\\"]/\\&/g' "$secret")
exec redis-server "$@" - <<EOF
$(cat "${CONFIG:-/etc/snapurl/redis.conf}")
maxmemory ${REDIS_MAXMEMORY:-512mb}
requirepass "$password"
EOF
