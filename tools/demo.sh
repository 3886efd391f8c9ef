#!/usr/bin/env bash
# The main job, shown: a volume, a snapshot, a backup, an incremental backup, a restore. Run by ./dev demo; the script
# itself runs in the machine (see tools/machine), on a pool made of two files: demo.sh inside [BYTES-OF-FILES]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

if [[ ${1:-} != inside ]]; then
  exec "$here/machine/machine.py" run --timeout 900 --memory 2G --disk data=12G -- "$here/demo.sh" inside
fi

bold=$(printf '\033[1m') plain=$(printf '\033[0m')
table=()
started=0

step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '  $ %s\n' "$*"; }
# Shows a command as one would type it, and runs it.
run() { show "$*"; eval "$*" 2>&1 | sed 's/^/    /'; }
begin() { started=$(date +%s%N); }
# One line of the table at the end.
end() { table+=("$(printf '%-34s %6.1f s   %s' "$1" "$(($(date +%s%N) - started))e-9" "${2:-}")"); }

work=/var/tmp/convoy-demo
socket=/run/convoy-demo.sock
bytes=${2:-300000000}
convoy() { command convoy --socket "$socket" "$@"; }

printf '%sconvoy: a volume that comes back%s\n' "$bold" "$plain"
echo "Every step is shown; where it says convoy, add --socket $socket to repeat it here."
pool=convoy-demo
# Whatever happens, nothing of it stays in a kernel that is the host's own.
clean_up() {
  local status=$?
  trap - EXIT
  set +e  # whatever fails, the rest is cleaned up
  ((status == 0)) || tail -n 20 "$work/daemon.log" >&2
  if [[ -n ${daemon:-} ]]; then kill "$daemon" && wait "$daemon"; fi
  "$here/remove_pool.sh" "$pool"
  local device
  for device in ${data:-} ${metadata:-}; do losetup --detach "$device"; done
  umount "$work"
  rmdir "$work"
  exit "$status"
}

step "0. A place to work in: a file system on an empty disk of the machine."
run "mkdir -p $work"
run "mkfs.ext4 -q $DISK_DATA"
run "mount $DISK_DATA $work"
trap clean_up EXIT
run "mkdir $work/backups $work/root"

step "1. A thin pool out of two files. On a real host, give two disks or partitions."
run "truncate -s 6G $work/data.img && truncate -s 64M $work/metadata.img"
show "losetup --find --show $work/data.img"
data=$(losetup --find --show "$work/data.img")
echo "    $data"
show "losetup --find --show $work/metadata.img"
metadata=$(losetup --find --show "$work/metadata.img")
echo "    $metadata"

step "2. The daemon. It makes the pool and serves the command line and Docker."
daemon_command=(convoy daemon --root "$work/root" --log "$work/daemon.log" --drivers devicemapper
  --driver-opts "dm.thinpoolname=$pool" --driver-opts "dm.datadev=$data" --driver-opts "dm.metadatadev=$metadata")
show "${daemon_command[*]} &"
# With exec, the process that will be told to end is the daemon, not a shell before it.
(exec "${daemon_command[@]}" --socket "$socket") &
daemon=$!
for ((i = 0; i < 100; i++)); do [[ ! -S $socket ]] || break; sleep 0.1; done

step "3. A volume of 2 GiB, with some of this machine's own files."
begin
run "convoy create docs --size 2G"
run "convoy mount docs"
end "create and mount"
mountpoint=$(convoy mount docs)
show "tar -C / -c --files-from=$work/files | tar -C $mountpoint -x    # some $((bytes / 1000000)) MB of /usr"
begin
# The first so many bytes of regular files, in a fixed order; no tiny ones, since User Mode Linux keeps a descriptor of the host's for
# each file that was read.
find /usr/bin /usr/sbin /usr/lib/*-linux-gnu -xdev -type f -size +20k -size -20M -printf '%s %p\n' 2>/dev/null | LC_ALL=C sort -k2 |
  awk -v bytes="$bytes" '{ total += $1; sub(/^[0-9]+ /, "") } total <= bytes' >"$work/files"
sed -i 's,^/,,' "$work/files"
tar -C / -cf - --files-from="$work/files" 2>/dev/null | tar -C "$mountpoint" -xf -
sync -f "$mountpoint"
size=$(du -sh --apparent-size "$mountpoint" | cut -f1)
end "copy files" "$size in $(wc -l <"$work/files") files"
echo "    $size in $(wc -l <"$work/files") files"

step "4. A snapshot, at once, with the volume mounted and in use."
begin
run "convoy snapshot create docs --name monday"
end "snapshot"

step "5. Its backup to a directory. Only what is mapped is read; it is compressed, and equal pieces are stored once."
show "convoy backup create monday --dest vfs://$work/backups/"
begin
monday=$(convoy backup create monday --dest "vfs://$work/backups/" 2>"$work/said")
end "first backup" "$(cut -d: -f2 <"$work/said")"
sed 's/^/    /' "$work/said"
echo "    $monday"

step "6. A few changes, another snapshot, another backup: the pool itself tells what changed."
changed=$(find "$mountpoint" -type f -size +100k | LC_ALL=C sort | sed -n '1p;50p;100p')
for file in $changed; do run "echo changed | dd of=$file conv=notrunc status=none"; done
run "echo 'a new file' > $mountpoint/new-file"
checksums="find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum"
show "(cd $mountpoint && $checksums) > $work/before"
(cd "$mountpoint" && eval "$checksums") >"$work/before"
begin
run "convoy snapshot create docs --name tuesday"
show "convoy backup create tuesday --dest vfs://$work/backups/"
tuesday=$(convoy backup create tuesday --dest "vfs://$work/backups/" 2>"$work/said")
end "snapshot and incremental backup" "$(cut -d: -f2 <"$work/said")"
sed 's/^/    /' "$work/said"

step "7. Disaster: the volume goes, with all its snapshots."
run "convoy umount docs"
run "convoy delete docs"
run "convoy list"

step "8. The restore, from the backup alone: any host could do it."
begin
run "convoy create copy --backup '$tuesday'"
end "restore" "$size"
run "convoy mount copy"

step "9. Every file is compared."
begin
mountpoint=$(convoy mount copy)
show "(cd $mountpoint && $checksums) > $work/after"
(cd "$mountpoint" && eval "$checksums") >"$work/after"
show "cmp $work/before $work/after"
if ! cmp "$work/before" "$work/after"; then
  echo "    The restored files differ." >&2
  exit 1
fi
end "compare" "$(wc -l <"$work/after") checksums"
echo "    All $(wc -l <"$work/after") checksums are equal."

printf '\n%sWhat took how long%s\n' "$bold" "$plain"
printf '  %s\n' "${table[@]}"
