#!/bin/sh
# Makes the passwords that docker-compose.yml asks for, in ./secrets beside it; those that are there stay.
#
# Compose mounts each file into the containers that name it, with the rights it has here: the services run as users
# who are nobody on this machine, so the files are readable to all, and the directory to its owner alone.
set -eu
umask 077
mkdir -p secrets
for name in superuser owner service migrator redis; do
    file=secrets/${name}_password.txt
    [ -s "$file" ] && continue
    od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n' > "$file.new"
    chmod 444 "$file.new"
    mv "$file.new" "$file"
done
