#!/usr/bin/env bash
# remove_pool.sh NAME: unmounts and removes the thin devices of a pool of ours, then the pool, from the running kernel. The
# daemon must be down; what is on the disks stays. For demo.sh and playground.sh, which may run on the host's own kernel.
set -eu
pool=$1

columns() { dmsetup info -c --noheadings --separator ' ' -o "$@" 2>/dev/null; }

# The pool's dm UUID is CONVOY-<pool id>-<pool id>, that of its devices CONVOY-<pool id>-<another id>.
uuid=$(columns uuid "$pool") || exit 0
[[ $uuid == CONVOY-* ]] || exit 0
mine=${uuid%-*-*-*-*-*}
columns name,uuid | while read -r name its_uuid; do
  [[ $its_uuid == "$mine"-* && $name != "$pool" ]] || continue
  while umount "/dev/mapper/$name" 2>/dev/null; do :; done
  dmsetup remove "$name"
done
dmsetup remove "$pool"
