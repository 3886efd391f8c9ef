#!/usr/bin/env bash
# Divides an empty disk into the two partitions that a pool needs. "dm_dev_partition.sh --help" tells more.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: dm_dev_partition.sh [--write-to-disk] [-m|--max-thins NUMBER] DEVICE

Plans two partitions on an empty disk: one for a pool's data, and at the disk's end one for its
metadata, large enough for this number of volumes and snapshots (10000). With --write-to-disk it
makes them, and shows how to start the daemon on them; without, it changes nothing.
TEXT
}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

readonly mib=$((1 << 20))
# The metadata's limits: the daemon's, and the kernel's (15.81 GiB).
readonly least_metadata=$((2 * mib)) most_metadata=$((255 * (1 << 14) * 4096 - 64 * mib))
# Two of the pool's blocks, of 2 MiB by default: it keeps one for itself.
readonly least_data=$((4 * mib))

write_to_disk=false
max_thins=10000
device=
while (($#)); do
  case $1 in
    --write-to-disk) write_to_disk=true ;;
    -m | --max-thins)
      (($# > 1)) || fail "$1 needs a number"
      max_thins=$2
      shift
      ;;
    --max-thins=*) max_thins=${1#*=} ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*) fail "there is no option $1 (try --help)" ;;
    *)
      [[ -z $device ]] || fail "give one device, not $device and $1"
      device=$1
      ;;
  esac
  shift
done
[[ -n $device ]] || fail "give the disk to divide (try --help)"
if ! [[ $max_thins =~ ^[1-9][0-9]{0,7}$ ]] || ((max_thins > 1 << 24)); then
  fail "--max-thins $max_thins: give a number from 1 to 16777216, which is the most that a pool can have"
fi

# --- Is it an empty disk that nobody uses? ---

[[ -e $device ]] || fail "$device does not exist"
[[ -b $device ]] || fail "$device is not a block device (use losetup to make one of a file)"
((EUID == 0)) || fail "run it as root: it has to read $device"
disk=$(readlink -f "$device")
name=${disk#/dev/}
name=${name//\//!}  # as /sys writes it

signature_at() {  # OFFSET SIZE: the signature found there, if any
  local found status=0
  found=$(blkid --probe --offset "$1" --size "$2" --output value --match-tag TYPE --match-tag PTTYPE "$disk" 2>/dev/null) || status=$?
  case $status in
    0 | 2) echo "${found%%$'\n'*}" ;;  # 2: there is none
    8) echo "several signatures" ;;
    *) echo "what blkid can't tell (it ends with $status)" ;;
  esac
}

# What libblkid doesn't know may be there, a pool's data or metadata for example.
is_zero_at() {  # OFFSET
  cmp --quiet --bytes=4096 --ignore-initial="$1":0 "$disk" /dev/zero
}

[[ ! -e /sys/class/block/$name/partition ]] || fail "$device is a partition; give the whole disk"
kind=$(lsblk --noheadings --nodeps --output TYPE "$disk")
[[ $kind == disk || $kind == loop ]] || fail "$device is not a whole disk but of type $kind"
[[ -z $(lsblk --noheadings --nodeps --output MOUNTPOINTS "$disk") ]] || fail "$device is mounted, or used for swap"
[[ -z $(ls "/sys/class/block/$name/holders" 2>/dev/null) ]] ||
  fail "$device is held by another device: $(ls "/sys/class/block/$name/holders")"
[[ -z $(blkid --probe --output value --match-tag PTTYPE "$disk" 2>/dev/null) ]] ||
  fail "$device already partitioned, can't start partition"
size=$(blockdev --getsize64 "$disk")
signature=$(signature_at 0 "$size")
[[ -z $signature ]] || fail "$device holds $signature: if that may be destroyed, run wipefs --all $device first"
is_zero_at 0 ||
  fail "$device is not empty, its first 4 KiB are not zero: if what it holds may be destroyed, zero them (dd of=$device bs=4096 count=1 if=/dev/zero)"
[[ $(blockdev --getro "$disk") == 0 ]] || fail "$device is read-only"

# --- The plan ---

tools=$(command -v convoy-pdata_tools) || fail "convoy-pdata_tools is not installed"
metadata=$("$tools" thin_metadata_size --block-size 2m --pool-size "${size}b" --max-thins "$max_thins" \
  --unit b --numeric-only 2>/dev/null) || fail "$device is too small: it has $size bytes"
((metadata <= most_metadata)) ||
  fail "the metadata of $device would need $metadata bytes, and can't have more than $most_metadata: give a smaller --max-thins"

sector=$(blockdev --getss "$disk")
label=dos
usable=$size
if ((size > 1 << 41)); then
  label=gpt
  usable=$((size - 33 * sector))  # its copy at the end
fi
round_up() { echo $((($1 + mib - 1) / mib * mib)); }
data_begin=$mib
metadata_size=$(round_up $((metadata > least_metadata ? metadata : least_metadata)))
metadata_begin=$((usable / mib * mib - metadata_size))
data_size=$((metadata_begin - data_begin))
((data_size >= least_data)) ||
  fail "$device is too small: of its $size bytes the metadata of $max_thins volumes and snapshots take $metadata_size; give a smaller --max-thins"
refuse_earlier_partition() {  # OFFSET SIZE
  local found
  found=$(signature_at "$1" "$2")
  [[ -n $found ]] || is_zero_at "$1" || found="something that is not zero"
  [[ -z $found ]] || fail "$device holds $found $1 bytes from its start, where a partition would begin:" \
    "if that may be destroyed, zero its first MiB there (dd of=$device bs=1M seek=$(($1 / mib)) count=1 if=/dev/zero)"
}
refuse_earlier_partition "$data_begin" "$data_size"
refuse_earlier_partition "$metadata_begin" "$metadata_size"

echo "$device size is $size bytes"
echo "Maximum volume and snapshot counts is $max_thins"
echo "Metadata Device size would be $metadata bytes"
echo "Data Device size would be $((size - metadata)) bytes"
echo "Data Device would be $(((size - metadata) / 512)) sectors"
$write_to_disk || exit 0

# --- Write it ---

echo "Start partitioning of $device"
sfdisk --quiet --no-tell-kernel "$disk" <<TABLE || fail "$device could not be partitioned"
label: $label
unit: sectors
start=$((data_begin / sector)), size=$((data_size / sector))
start=$((metadata_begin / sector)), size=$((metadata_size / sector))
TABLE

# A name that ends in a digit gets a p before the partition's number.
prefix=$disk
[[ $disk != *[0-9] ]] || prefix=${disk}p
nodes_are_there() { [[ -b ${prefix}1 && -b ${prefix}2 ]]; }
# The kernel looks at a loop device's table only if that was asked for when it was made.
blockdev --rereadpt "$disk" 2>/dev/null || partx --add "$disk" 2>/dev/null || true
for ((tries = 0; tries < 50; ++tries)); do
  ! nodes_are_there || break
  sleep 0.1
done
nodes_are_there || fail "$device is partitioned, but ${prefix}1 and ${prefix}2 did not appear: run partprobe $device"

echo "Complete the partition of $device"
sfdisk --list "$disk"
cat <<TEXT

Now you can start Convoy Daemon using:
convoy daemon --drivers devicemapper --driver-opts dm.datadev=${prefix}1 --driver-opts dm.metadatadev=${prefix}2
TEXT
