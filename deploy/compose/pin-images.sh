#!/bin/sh
# Pins the images of docker-compose.yml and the base of our own to what their names mean now: it fetches each and
# writes its digest into deploy/compose/images.yml. Run it again for newer ones:
#
#   sh deploy/compose/pin-images.sh
#
# With what it says at the end in .env Compose runs those and no others.
set -eu
file=deploy/compose/images.yml
trap 'rm -f "$file.new"' EXIT

# The digest under which a registry has the image of a name.
pinned() {
    docker pull --quiet "$1" > /dev/null
    digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$1" \
        | sed -n "s/^\(.*\/\)\{0,1\}${1%%:*}@//p" | head -n 1)
    [ -n "$digest" ] || { echo "pin-images: $1 has no digest: it comes from no registry" >&2; exit 1; }
    echo "$1@$digest"
}

# The image whose name begins so in docker-compose.yml.
named() {
    sed -n "s/^ *image: \($1:[^ ]*\).*/\1/p" docker-compose.yml
}

{
    echo "# Written by deploy/compose/pin-images.sh."
    echo "services:"
    python=$(pinned "$(sed -n 's/^ARG PYTHON=//p' Dockerfile)")
    echo "  migrate: {build: {args: {PYTHON: \"$python\"}}}"
    postgres=$(pinned "$(named postgres)")
    for shard in db0 db1 db2 db3 db4; do echo "  $shard: {image: \"$postgres\"}"; done
    redis=$(pinned "$(named redis)")
    echo "  redis: {image: \"$redis\"}"
    proxy=$(pinned "$(named haproxy)")
    echo "  proxy: {image: \"$proxy\"}"
} > "$file.new"
mv "$file.new" "$file"
echo "in .env: COMPOSE_FILE=docker-compose.yml:$file"
