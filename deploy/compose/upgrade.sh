#!/bin/sh
# Replaces the running programs by those of a new release or of a changed .env, without a failed request:
#
#   sh deploy/compose/upgrade.sh
#
# It builds the image, applies migrations, which the running programs of the release before can live with, and starts
# a replica for each that runs; once the proxy uses the new one, an old one is stopped. It may be run again at any
# time. Databases and Redis stay as they are: `docker compose up --detach --wait` recreates those of a changed file.
set -eu

say() {
    echo "upgrade: $1" >&2
}

# How many replicas the proxy uses; nothing if it does not run.
used() {
    docker compose exec -T proxy wget -q -O - http://127.0.0.1:8404/replicas 2>/dev/null || true
}

docker compose build migrate
docker compose run --rm --no-deps -T migrate

old=$(docker compose ps --quiet --status running api)
if [ -z "$old" ]; then
    say "no replica runs; start everything: docker compose up --detach --wait"
    exit 1
fi
count=$(echo "$old" | wc -l)
kept=$old
for each in $old; do
    if ! docker compose up --detach --no-deps --no-recreate --wait --scale "api=$((count + 1))" api; then
        for one in $(docker compose ps --all --quiet api); do
            if ! echo "$kept" | grep -q "$one"; then
                docker logs --tail 20 "$one" >&2
                docker rm --force "$one" > /dev/null
            fi
        done
        say "a new replica does not become healthy (its last words are above); the others go on"
        exit 1
    fi
    kept=$(docker compose ps --quiet api)
    tries=0
    while [ "$(used)" != "$((count + 1))" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 60 ]; then
            say "the proxy uses $(used) replicas instead of $((count + 1)); the others go on"
            exit 1
        fi
        sleep 1
    done
    docker stop "$each" > /dev/null
    docker rm "$each" > /dev/null
done
docker compose up --detach --no-deps --wait clicks migrator
