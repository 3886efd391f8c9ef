#!/bin/bash
# Init of the User Mode Linux guest that machine.py boots: makes a system out of the host's files,
# runs one job in it, reports, and powers off. machine.py writes what this script reads:
#
#   $MACHINE_SHARE            on the kernel's command line: a host directory, new for each boot
#     settings                shell variables: vm_out, visible (an array), interactive, init
#     job                     a bash script: the environment and the command
#     out                     a symbolic link to the host directory that is $VM_OUT here
#     stdout, stderr, kmsg    written here while the job runs
#     status                  written last; without it the machine counts as lost
#
# The host's files are only read, except for the two directories that are mounted to be written.
# shellcheck disable=SC1091,SC2154 # The settings are a file that shellcheck does not see.

set -eu

# The end of init is a kernel panic: whatever ends this script has to power the machine off. Without
# -n this would first sync, which settle() has done as far as it can be done.
trap 'busybox poweroff -n -f' EXIT

# An exec costs 20 ms here. A static program needs half of that, and booting is mostly these.
mount() { busybox mount "$@"; }
umount() { busybox umount "$@"; }
mkdir() { busybox mkdir "$@"; }
ln() { busybox ln "$@"; }

modules=/usr/lib/uml/modules

# The root is the host's / through hostfs, mounted read-only. /mnt, which every system has, takes
# what is needed to put a writable layer in memory on top of it.
enter_writable_root() {
  insmod "$modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
  mount -t tmpfs none /mnt
  mkdir /mnt/upper /mnt/work /mnt/root
  mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work none /mnt/root
  cd /mnt/root
  pivot_root . mnt
  cd /
  umount -l /mnt
}

mount_kernel_filesystems() {
  mount -t proc none /proc
  mount -t sysfs none /sys
  mount -t devtmpfs none /dev
  mkdir -p /dev/pts /dev/shm
  mount -t devpts none /dev/pts
  mount -t tmpfs -o mode=1777 none /dev/shm
  # udev makes these elsewhere; bash needs /dev/fd for <(...).
  ln -s /proc/self/fd /dev/fd
  ln -s fd/0 /dev/stdin
  ln -s fd/1 /dev/stdout
  ln -s fd/2 /dev/stderr
}

# cover DIR OPTIONS: an empty tmpfs over DIR, in which the source tree and the caller's directory
# stay visible, for both may well be in /tmp.
cover() {
  local path
  mount -t tmpfs -o "$2" none /mnt
  for path in "${visible[@]}"; do
    if [[ $path == "$1"/* ]]; then
      mkdir -p "/mnt${path#"$1"}"
      mount --bind "$path" "/mnt${path#"$1"}"
    fi
  done
  mount --move /mnt "$1"
}

load_modules() {
  mkdir -p /lib/modules
  mount --bind "$modules" /lib/modules
  modprobe -a dm-thin-pool loop
}

# relay NAME: copies stdin to the share. The job gets pipes, as it would from a shell, because a
# program may open /dev/stderr anew and so truncate a file. Real-time priority makes the relay run
# before the writer's next instruction: not even a panic loses what was written before it.
relay() { exec chrt --fifo 1 cat >"$share/$1"; }

start_relays() {
  # They may need the whole CPU for a moment, of which the kernel would warn.
  echo -1 >/proc/sys/kernel/sched_rt_runtime_us
  relay kmsg </dev/kmsg &
  if [[ $interactive == no ]]; then exec {out}> >(relay stdout) {err}> >(relay stderr); fi
}

# Sets $leftovers to the processes that are neither kernel threads nor this script and its relays:
# those are all in session 0, and the job began a session of its own. Nor are systemd and its journal.
find_leftovers() {
  local stat line fields
  leftovers=()
  for stat in /proc/[0-9]*/stat; do
    # A name in parentheses, which may contain anything, then state, parent, group, session.
    read -r line 2>/dev/null <"$stat" || continue
    if [[ $line == *"(systemd"* ]]; then continue; fi
    read -r -a fields <<<"${line##*) }"
    if [[ ${fields[0]} != Z && ${fields[3]} != 0 ]]; then leftovers+=("${line%% *}"); fi
  done
}

# As a system going down does: SIGTERM, two seconds to obey it, SIGKILL.
stop_leftovers() {
  local signal try
  for signal in TERM KILL; do
    for try in {1..20}; do
      find_leftovers
      if ((${#leftovers[@]} == 0)); then return; fi
      if ((try == 1)); then kill -"$signal" "${leftovers[@]}" 2>/dev/null || true; fi
      sleep 0.1
    done
  done
}

run_job() {
  setsid --wait bash "$share/job" </dev/null >&"$out" 2>&"$err" {out}>&- {err}>&-
}

run_interactive_job() {
  local status=0
  setsid --ctty --wait bash "$share/job" <>/dev/tty0 >&0 2>&0 || status=$?
  # Or else every session would end with an emergency message: that the system is halted.
  echo 0 >/proc/sys/kernel/printk
  return "$status"
}

# Nothing that the host or its packages have enabled starts by itself, except for the journal; nor is
# anything mounted. A job can start what it wants.
forget_the_hosts_services() {
  local unit
  mount -t tmpfs none /etc/systemd/system
  for unit in /lib/systemd/system/*.wants/*; do
    unit=${unit##*/}
    if [[ $unit != systemd-journald* ]]; then ln -sf /dev/null "/etc/systemd/system/$unit"; fi
  done
  : >/etc/fstab
  echo convoy-machine >/etc/hostname
  # By these systemd would know a container, where it leaves mount propagation as it is.
  busybox rm -f /.dockerenv /run/.containerenv
}

wait_for_systemd() {
  SECONDS=0
  until [[ $(systemctl is-system-running 2>/dev/null) =~ running|degraded ]]; do
    if ((SECONDS >= 60)); then
      systemctl --failed --no-pager >&"$err" || true
      echo "machine: systemd did not come up" >&"$err"
      exit 1
    fi
    sleep 0.2
  done
}

# Gets everything to the disks. What writes to a suspended device or a full pool waits forever; the
# machine must not.
settle() {
  local limit=5
  { umount -a -t ext4,xfs,btrfs 2>/dev/null; sync; } &
  SECONDS=0
  while kill -0 $! 2>/dev/null; do
    if ((SECONDS >= limit)); then
      echo "<4>machine: the disks could not be written within $limit s" >/dev/kmsg
      return
    fi
    busybox sleep 0.01
  done
}

# What the machine is for: the job, and an end that leaves the disks as the job left them.
work() {
  echo '<6>machine: ready' >/dev/kmsg
  local status=0
  if [[ $interactive == yes ]]; then run_interactive_job || status=$?; else run_job || status=$?; fi

  # An orderly end would write what a power cut is to lose.
  while [[ -e $vm_out/power-cut ]]; do sleep 1; done

  stop_leftovers
  settle
  # What the relay of the kernel's log has not seen yet; machine.py drops what it finds twice.
  dd if=/dev/kmsg iflag=nonblock bs=8k 2>/dev/null >>"$share/kmsg" || true
  echo "$status" >"$share/status"
}

# What is not the kernel's own on its command line is in this environment, but not for the job.
export -n MACHINE_SHARE
unset mem uml_dir

. "$MACHINE_SHARE/settings"
enter_writable_root
mount_kernel_filesystems
cover /tmp mode=1777
cover /run mode=755
share=/run/machine
mkdir -p /run/lock /run/home "$share" "$vm_out"
mount -t hostfs -o "$MACHINE_SHARE" none "$share"
mount -t hostfs -o "$MACHINE_SHARE/out" none "$vm_out"
start_relays
busybox ip link set lo up
echo convoy-machine >/proc/sys/kernel/hostname
load_modules
if [[ $init == systemd ]]; then
  forget_the_hosts_services
  # The end of a background job runs no trap of its parent.
  { trap 'busybox poweroff -n -f' EXIT; wait_for_systemd; work; } &
  exec -c /lib/systemd/systemd --unit=basic.target
fi
work
