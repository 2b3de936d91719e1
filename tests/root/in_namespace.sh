#!/bin/sh
# Run a command as root among accounts of our own: harper, alice, mickey97, _muster. The host's files stay untouched:
# everything is mounted inside a private mount namespace, which ends with the command.
here=$(cd "$(dirname "$0")" && pwd)
MUSTER_HERE=$here exec unshare --mount --propagation private sh -ec '
    mount --bind "$MUSTER_HERE/passwd" /etc/passwd
    mount --bind "$MUSTER_HERE/group" /etc/group
    mount -t tmpfs -o mode=755 homes /home
    mount -t tmpfs -o mode=755 sites /srv
    for account in harper:2001 alice:2002 mickey97:2003; do
        home=/home/${account%:*}
        mkdir -m 700 "$home"
        chown "${account#*:}:${account#*:}" "$home"
    done
    unset MUSTER_HERE
    exec "$@"' sh "$@"
