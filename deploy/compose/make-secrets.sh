#!/bin/sh
# Makes the passwords that docker-compose.yml asks for, in ./secrets beside it; those that are there stay.
#
# Compose mounts each file into the containers that name it, with the rights it has here: the services run as users
# who are nobody on this machine, so the files are readable to all, and the directory to its owner alone.
set -euC # C: `>` makes a new file, and follows no link
umask 077

refuse() {
    echo "make-secrets: $1" >&2
    exit 1
}

mkdir secrets 2>/dev/null || true
[ -d secrets ] && [ ! -L secrets ] || refuse "secrets is not a directory: move it away"
[ -O secrets ] || refuse "secrets belongs to another user: move it away"
mode=$(ls -ld secrets | cut -c 5-10)
case $mode in
*w*) refuse "other users can write to secrets, so its passwords may be theirs: remove it, and make new ones" ;;
------) ;;
*)
    chmod 700 secrets
    echo "make-secrets: other users could read secrets, and no longer can; if one may have, make new passwords" >&2
    ;;
esac
for name in superuser owner service migrator redis; do
    file=secrets/${name}_password.txt
    [ -s "$file" ] && continue
    rm -f "$file.new"
    od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n' > "$file.new"
    chmod 444 "$file.new"
    mv "$file.new" "$file"
done
