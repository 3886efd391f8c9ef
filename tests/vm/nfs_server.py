"""A server of NFS 4.2 in the machine's kernel, and its client there."""

import ctypes
import os
import subprocess
import time
from pathlib import Path

from support import run

PROGRAMS = Path(os.environ.get("CONVOY_BUILD_DIR", Path(__file__).resolve().parents[2] / "build")) / "nfs"
EXPORT = Path("/srv/export")
CLIENT = Path("/mnt/nfs")
QUOTA_IDS = 65534  # whom everybody is on the server, with "all_squash"


def nfs(program: str, *words: str) -> None:
    libraries = ":".join(str(PROGRAMS / path) for path in ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"))
    (path,) = (path for path in (PROGRAMS / "usr/sbin" / program, PROGRAMS / "sbin" / program) if path.exists())
    subprocess.run([path, *words], env=os.environ | {"LD_LIBRARY_PATH": libraries}, check=True, timeout=60)


def start_server() -> None:
    """Once in a machine."""
    for module in ("nfsd", "nfsv4", "quota_v2"):
        run("modprobe", module)
    for directory in (EXPORT, CLIENT, Path("/var/lib/nfs/v4recovery")):
        directory.mkdir(parents=True, exist_ok=True)
    for name in ("etab", "rmtab"):
        Path("/var/lib/nfs", name).touch()
    Path("/etc/exports").touch()
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("ip", "link", "set", "lo", "up")
    # The shortest: so long does a server that has started wait for clients of the one before.
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        Path("/proc/fs/nfsd", name).write_text("10")
    nfs("rpc.mountd", "-N", "2", "-N", "3", "--no-udp")


def serve() -> None:
    nfs("rpc.nfsd", "-N", "3", "-V", "4", "--no-udp", "2")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")


def stop_serving() -> None:
    nfs("rpc.nfsd", "0")


def export(options: str = "rw,no_root_squash") -> None:
    """What is at EXPORT from now on, in place of what was exported before."""
    nfs("exportfs", "-ua")
    nfs("exportfs", "-o", f"{options},no_subtree_check,fsid=0", f"127.0.0.1:{EXPORT}")


def mount() -> None:
    # Errors after two seconds or so, in place of waiting for ever.
    deadline = time.monotonic() + 30
    while True:
        try:
            return nfs("mount.nfs4", "127.0.0.1:/", str(CLIENT), "-o", "softerr,timeo=10,retrans=1")
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def unmount() -> None:
    run("umount", "-f", CLIENT, check=False)


def set_quota(device: str, user: int, kib: int) -> None:
    """For a file system with user quotas; 0: none. quotactl(2), since no program for it is here."""

    class DiskQuota(ctypes.Structure):
        _fields_ = [(name, ctypes.c_uint64) for name in (
            "hard_kib", "soft_kib", "bytes", "hard_inodes", "soft_inodes", "inodes", "block_time", "inode_time"
        )] + [("valid", ctypes.c_uint32)]  # fmt: skip

    set_quota_of_user = ctypes.c_int(0x800008 << 8).value
    quota = DiskQuota(hard_kib=kib, soft_kib=kib, valid=1)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.quotactl(set_quota_of_user, device.encode(), user, ctypes.byref(quota)) != 0:
        raise OSError(ctypes.get_errno(), "quotactl")
