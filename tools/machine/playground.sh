#!/bin/bash
# A convoy daemon on the machine's two empty disks, and a shell to try it from. Runs inside the
# machine: machine.py run --interactive -- tools/machine/playground.sh. When the shell ends, so does
# the daemon; what was made is gone, except in $VM_OUT. The machine may be the host itself: nothing
# is where an installed convoy keeps its own.

set -eu

place=$(mktemp -d /tmp/convoy-playground.XXXXXX)
root=$place/root
log=$place/convoy.log
errors=$place/convoy.stderr
socket=$place/convoy.sock
backups=$place/backups
pool=convoy-playground

# What the daemon prints before it has opened its log goes to a file of its own.
start_daemon() {
  mkdir "$root" "$backups"
  convoy --socket "$socket" daemon --drivers devicemapper --root "$root" --log "$log" \
    --driver-opts "dm.thinpoolname=$pool" --driver-opts "dm.datadev=$DISK_DATA" --driver-opts "dm.metadatadev=$DISK_META" \
    </dev/null >"$errors" 2>&1 &
  daemon=$!
  trap stop_daemon EXIT
}

stop_daemon() {
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" || true
  "$(dirname "$0")/../remove_pool.sh" "$pool"
  rm -r --one-file-system "$place"
}

wait_for_socket() {
  local limit=15
  SECONDS=0
  until [[ -S $socket ]]; do
    if ! kill -0 "$daemon" 2>/dev/null; then fail "the daemon ended"; fi
    if ((SECONDS >= limit)); then fail "the daemon made no $socket within $limit s"; fi
    sleep 0.1
  done
}

fail() {
  cat "$errors" "$log" 2>/dev/null || true
  echo "playground: $1; above is what it said" >&2
  exit 1
}

show_hint() {
  cat <<END

A convoy daemon is running on $DISK_DATA and $DISK_META. Its log is $log. For example:

  convoy create web --size 1G             a volume
  convoy mount web                        prints where it is mounted
  convoy snapshot create web --name s1
  convoy backup create s1 --dest vfs://$backups/
  convoy list
  dmsetup status                          the pool, as the kernel sees it

Files in $VM_OUT are seen by the host, too. Ctrl-D ends the machine.

END
}

if ! command -v convoy >/dev/null; then
  echo "playground: there is no convoy on PATH: build it first" >&2
  exit 1
fi
start_daemon
wait_for_socket
show_hint
echo "convoy() { command convoy --socket '$socket' \"\$@\"; }" >"$place/shell"
bash --rcfile "$place/shell" || true
