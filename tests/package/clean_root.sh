#!/bin/bash
# clean_root.sh PACKAGE: installs the package in a fresh, minimal Debian of its own and tries what a user would. Needs
# root and Debian's archive, and takes minutes: "./dev test --all" runs it. The rest of what is to be said of the package
# is in tests/functional and tests/vm, without network.
set -euo pipefail

package=$(readlink -f "$1")
root=$(mktemp -d /var/tmp/convoy-clean-root.XXXXXX)
chmod 755 "$root" # programs in it run as other users, too
trap 'rm -rf --one-file-system "$root"' EXIT

if [[ -n ${CONVOY_CLEAN_ROOT:-} ]]; then
  cp -a "$CONVOY_CLEAN_ROOT/." "$root" # one that debootstrap has made before
else
  debootstrap --variant=minbase bookworm "$root" >"$root.log" || { tail "$root.log"; exit 1; }
  rm "$root.log"
fi
cp "$package" "$root/convoy.deb"
# No service may start in here.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

cat >"$root/try" <<'TRY'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 MANWIDTH=100
mount -t proc none /proc

step() { printf -- '-- %s\n' "$*"; }
fail() { echo "clean_root: $*" >&2; exit 1; }

step "install with what it depends on, and no more"
apt-get -qq update
apt-get -qq install -y --no-install-recommends /convoy.deb >/dev/null
convoy --help | grep -q 'Usage: convoy'
convoy --version
[[ $(convoy list 2>/dev/null) == *'no daemon answers'* ]] || fail "list does not say that no daemon answers"

step "man, completions, unit"
apt-get -qq install -y --no-install-recommends man-db bash-completion zsh fish systemd >/dev/null
for page in convoy convoy-daemon convoy-volume convoy-snapshot convoy-backup convoy-pdata_tools; do
  # groff's headers are in capitals.
  [[ $(man "$page") == "${page^^}(8)"* ]] || fail "there is no page $page(8)"
done
[[ $(apropos convoy-snapshot) == *'snapshots of volumes'* ]] || fail "apropos does not know convoy-snapshot"
offered=$(bash -ic '. /usr/share/bash-completion/bash_completion; _completion_loader convoy
  COMP_WORDS=(convoy snap) COMP_CWORD=1; _convoy; echo "${COMPREPLY[@]}"' 2>/dev/null)
[[ $offered == snapshot ]] || fail "bash offers '$offered'"
[[ $(fish -c 'complete -C "convoy snap"') == snapshot* ]] || fail "fish does not complete"
[[ $(zsh -ic 'autoload -U compinit; compinit -u -D; echo $_comps[convoy]' 2>/dev/null) == _convoy ]] || fail "zsh does not complete"
warnings=$(systemd-analyze verify /lib/systemd/system/convoy.service 2>&1) || fail "systemd-analyze: $warnings"
[[ -z $warnings ]] || fail "systemd-analyze: $warnings"

step "the administrator's changes survive an upgrade; purge leaves nothing"
dpkg -i /convoy.deb >/dev/null # enabled now that there is systemd
[[ $(systemctl is-enabled convoy) == enabled ]] || fail "the service is not enabled"
systemctl disable convoy 2>/dev/null
echo 'CONVOY_DAEMON_OPTIONS="--debug"' >/etc/default/convoy
dpkg -i --force-confold /convoy.deb >/dev/null
[[ $(systemctl is-enabled convoy || true) == disabled ]] || fail "an upgrade enabled a disabled service"
grep -q -- --debug /etc/default/convoy || fail "an upgrade lost the daemon's options"
mkdir -p /var/lib/rancher/convoy
apt-get -qq purge -y convoy >/dev/null
left=$(find / -xdev -path /proc -prune -o -name '*convoy*' -print | grep -v '^/convoy.deb$' || true)
[[ $left == /var/lib/rancher/convoy ]] || fail "purge leaves, or does not: $left"
TRY
unshare --mount --pid --fork chroot "$root" /bin/bash /try
echo "the package works in a clean Debian"
