#!/bin/sh
# Replaces the running programs by those of a new release or of a changed .env, without a failed request:
#
#   sh deploy/compose/upgrade.sh
#
# It builds the image and applies migrations, which the programs of the release before can live with. Then it starts a
# replica for each that runs; once the proxy uses the new one, an old one is stopped. Click consumer and migrator come
# last: nobody waits for them. It may be run again at any time. Databases, Redis and the proxy stay as they are;
# `docker compose up --detach --wait` recreates those whose part of the file has changed.
set -eu

fail() {
    echo "upgrade: $1; the others go on" >&2
    exit 1
}

# Starts what does not run and leaves what does; $1 replicas.
up() {
    replicas=$1
    shift
    docker compose up --detach --no-recreate --wait --scale "api=$replicas" "$@"
}

used() { # how many replicas the proxy uses; nothing if it does not run
    docker compose exec -T proxy wget -q -O - http://127.0.0.1:8404/replicas 2>/dev/null || true
}

docker compose build migrate
docker compose rm --force migrate # the next `up` makes it of the new image, and waits for its end

old=$(docker compose ps --quiet --status running api)
[ -n "$old" ] || fail "no replica runs: start everything with docker compose up --detach --wait"
count=$(echo "$old" | wc -l)
for each in $old; do
    before=$(docker compose ps --all --quiet api)
    if ! up $((count + 1)) api; then
        for one in $(docker compose ps --all --quiet api); do
            if ! echo "$before" | grep -q "$one"; then
                docker logs --tail 20 "$one" >&2
                docker rm --force "$one" > /dev/null
            fi
        done
        fail "a new replica does not become healthy"
    fi
    tries=0
    until [ "$(used)" = "$((count + 1))" ]; do
        tries=$((tries + 1))
        [ "$tries" -le 60 ] || fail "the proxy uses $(used) replicas instead of $((count + 1))"
        sleep 1
    done
    docker stop "$each" > /dev/null
    docker rm "$each" > /dev/null
done
docker compose rm --stop --force clicks migrator
up "$count"
