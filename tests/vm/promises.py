"""What the campaigns check after a crash: what is in a file system, and that nothing is left over in the pool, the kernel or the
catalog."""

import contextlib
import ctypes
import os
import sqlite3
import unittest
from pathlib import Path

from support import META, ROOT, convoy_json, dm_devices, file_digests, mounts, run

LOOK = Path("/mnt/look")
MS_RDONLY = 1

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def looking_into(device: str, *, replaying: bool = False):
    """The directory at which the file system on a device is mounted: without a change of it, or so that its log is replayed."""
    LOOK.mkdir(exist_ok=True)
    with open(device, "rb") as begin:
        fs, options = (b"xfs", b"norecovery,nouuid") if begin.read(4) == b"XFSB" else (b"ext4", b"noload")
    flags = MS_RDONLY
    if replaying:
        flags, options = 0, options.replace(b"norecovery,", b"").replace(b"noload", b"")
    if libc.mount(device.encode(), str(LOOK).encode(), fs, flags, options) != 0:
        raise OSError(ctypes.get_errno(), f"{device} can't be mounted")
    try:
        yield LOOK
    finally:
        libc.umount(str(LOOK).encode())


def check_file_system(device: str, fs: str, *, has_log: bool = False) -> None:
    """That of an unmounted volume. `has_log`: it may be as it was in a snapshot, and its log is replayed first."""
    if fs == "ext4":
        run("fsck.ext4", "-fn", device)
        return
    found = run("xfs_repair", "-n", device, check=False)
    # Unlike fsck.ext4, it looks past the log.
    if has_log and "valuable metadata changes in a log" in found.stderr + found.stdout:
        with looking_into(device, replaying=True):
            pass
        found = run("xfs_repair", "-n", device, check=False)
    if found.returncode != 0:
        raise AssertionError(f"xfs_repair -n {device} ended with {found.returncode}:\n{found.stdout}{found.stderr}")


def files_of(device: str) -> dict[str, str]:
    with looking_into(device) as directory:
        return file_digests(directory)


def check_nothing_is_left(
    test: unittest.TestCase, metadata: str = META, others: tuple[str, ...] = (), destination: Path | None = None
) -> None:
    """Every thin id, dm device (but for `others`, which root and destination may be on), mount, row and metadata snapshot belongs
    to something that users see."""
    volumes = convoy_json("list")
    ids = [0]  # of the label, which is none
    ids += [int(volume["DriverInfo"]["DevID"]) for volume in volumes.values()]
    ids += [int(each["DriverInfo"]["DevID"]) for volume in volumes.values() for each in volume["Snapshots"].values()]
    status = run("dmsetup", "status", "convoy-pool").stdout.split()
    test.assertEqual(status[6], "-", "a metadata snapshot is held")
    run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
    in_pool = run("convoy-pdata_tools", "thin_ls", "-m", "--no-headers", "-o", "DEV", metadata).stdout.split()
    run("dmsetup", "message", "convoy-pool", "0", "release_metadata_snap")
    test.assertEqual(sorted(map(int, in_pool)), sorted(ids))
    test.assertEqual(dm_devices(), sorted(["convoy-pool", *others, *volumes]))
    test.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)
    mounted = set(mounts()) - {str(ROOT), str(destination)}
    test.assertEqual(sorted(mounted), sorted(volume["MountPoint"] for volume in volumes.values() if volume["MountPoint"]))
    with contextlib.closing(sqlite3.connect(f"file:{ROOT}/catalog.db?mode=ro", uri=True)) as catalog:
        test.assertEqual(catalog.execute("SELECT name, state FROM device WHERE state != 'ready'").fetchall(), [])
        test.assertEqual(catalog.execute("SELECT count(*) FROM intent").fetchone(), (0,))
    mountpoints = ROOT / "devicemapper/mounts"
    directories = [str(path) for path in mountpoints.iterdir()] if mountpoints.exists() else []
    test.assertLessEqual(set(directories), set(mounts()), "a mount point is left")


def sync_file_system(directory: str | Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs of {directory}")
    finally:
        os.close(descriptor)
