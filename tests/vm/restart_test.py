"""Stopping, killing and starting the daemon again, and reboots of the machine."""
# budget: 800
# machine: --disk root=1G

import contextlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
import unittest
from pathlib import Path

from support import (
    DATA,
    LOG,
    META,
    MIB,
    ROOT,
    SOCKET,
    Daemon,
    NotStarted,
    PoolTest,
    allow_kernel,
    check_after_a_cut,
    convoy,
    convoy_error,
    convoy_json,
    dm_devices,
    docker,
    file_digests,
    mounts,
    pool_options,
    run,
    seal_superblock,
    shut_down_pool,
    thin_check,
    wipe,
)

SUPERBLOCK_MAGIC = 27022010
NEEDS_CHECK = 1
BOOT = int(os.environ.get("VM_BOOT", "1"))
OUT = Path(os.environ["VM_OUT"])


class Restart(PoolTest):
    def test_stopping_leaves_volumes_mounted_and_usable_and_starting_goes_on(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        writer = subprocess.Popen(
            ["sh", "-c", f"while :; do date > {mountpoint}/beat; sync {mountpoint}/beat; sleep 0.05; done"]
        )
        self.addCleanup(writer.kill)
        convoy("snapshot", "create", "db", "--name", "s1")
        for how in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            status = self.daemon.stop(how)
            self.assertEqual(status, 0 if how != signal.SIGKILL else -9)
            (mountpoint / "written").write_text(str(how))
            os.sync()
            self.daemon.start()  # without driver options: the catalog knows them
            self.assertEqual(convoy_json("inspect", "db")["MountPoint"], str(mountpoint))
            self.assertEqual((mountpoint / "written").read_text(), str(how))
            self.assertIsNone(writer.poll())
        self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), ["s1"])
        convoy("snapshot", "create", "db", "--name", "s2")
        writer.kill()
        writer.wait()

    def test_a_killed_daemon_resumes_what_it_left_suspended_or_half_made(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("snapshot", "create", "db", "--name", "s1")
        info = convoy_json("snapshot", "inspect", "s1")["DriverInfo"]
        self.daemon.kill()
        # What a death in the worst moments leaves: a suspended volume, a held metadata snapshot, a snapshot's work device.
        run("dmsetup", "suspend", "db")
        run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
        pool_uuid, work = self.pool_uuid(), f"convoy-pool-{info['UUID']}"
        run(
            "dmsetup", "create", work, "--readonly", "-u", f"CONVOY-{pool_uuid}-{info['UUID']}",
            "--table", f"0 131072 thin /dev/mapper/convoy-pool {info['DevID']}",
        )  # fmt: skip
        self.daemon.start()
        self.assertEqual(dm_devices(), ["convoy-pool", "db"])
        self.assertIn("ACTIVE", run("dmsetup", "info", "db").stdout)
        self.assertEqual(run("dmsetup", "status", "convoy-pool").stdout.split()[6], "-")

    def cut_while_a_metadata_snapshot_is_taken(self, number: int | None = None, flags: int = 0) -> int:
        """What is on the disk between the two flushes of reserve_metadata_snap's commit: the superblock names the copy that is
        the metadata snapshot, and nothing counts a reference to it yet. Its block, which must be free."""
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool()
        with open(META, "r+b") as device:
            superblock = bytearray(device.read(4096))
            number = number or int.from_bytes(superblock[192:200], "little") - 1  # the last one
            superblock[4] |= flags
            copy = bytearray(superblock)
            copy[8:16] = number.to_bytes(8, "little")
            copy[64:320] = bytes(256)  # the space maps
            superblock[56:64] = number.to_bytes(8, "little")
            for block, content in ((number, copy), (0, superblock)):
                device.seek(block * 4096)
                device.write(seal_superblock(content))
            os.fsync(device.fileno())
        return number

    def test_a_metadata_snapshot_that_a_power_cut_left_half_taken(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(8 * MIB))
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s1")
        before = file_digests(convoy("mount", "db"))
        convoy("umount", "db")
        self.cut_while_a_metadata_snapshot_is_taken(flags=NEEDS_CHECK)  # as a write that failed just then leaves it
        with self.assertRaisesRegex(NotStarted, "run thin_check --clear-needs-check-flag"):
            self.daemon.start()
        run("thin_check", "--clear-needs-check-flag", META)
        self.daemon.start()
        self.assertEqual(file_digests(convoy("mount", "db")), before)
        url = convoy("backup", "create", "s1", "--dest", self.url)
        convoy("create", "copy", "--backup", url)
        self.assertEqual(file_digests(convoy("mount", "copy")), before)

    def test_a_metadata_snapshot_that_a_power_cut_left_half_released(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(8 * MIB))
        before = file_digests(mountpoint)
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s1")
        convoy("backup", "create", "s1", "--dest", self.url)
        # As the backup left it between the two flushes of its release: taken, and no longer named.
        run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
        with contextlib.closing(sqlite3.connect(f"{ROOT}/catalog.db")) as catalog, catalog:
            held = int(run("dmsetup", "status", "convoy-pool").stdout.split()[6])
            catalog.execute("UPDATE pool SET metadata_snapshot = ?", [held])
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool()
        with open(META, "r+b") as device:
            superblock = bytearray(device.read(4096))
            superblock[56:64] = bytes(8)
            device.seek(0)
            device.write(seal_superblock(superblock))
            os.fsync(device.fileno())
        self.assertIn("expected 1, but got 2", run("thin_check", META, check=False).stderr)
        self.daemon.start()
        self.assertEqual(file_digests(convoy("mount", "db")), before)
        convoy("umount", "db")
        self.daemon.stop()
        shut_down_pool()
        thin_check()
        self.daemon.start()  # and what is deleted comes back to the pool, which tear_down looks at

    def test_one_left_half_taken_of_a_pool_that_was_made_active_since(self) -> None:
        allow_kernel("metadata snapshot already exists|reserve_metadata_snap message failed")
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(8 * MIB))
        before = file_digests(mountpoint)
        convoy("snapshot", "create", "db", "--name", "s1")
        convoy("umount", "db")
        uuid = run("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", "convoy-pool").stdout.strip()
        table = run("dmsetup", "table", "convoy-pool").stdout
        run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
        held = int(run("dmsetup", "status", "convoy-pool").stdout.split()[6])
        run("dmsetup", "message", "convoy-pool", "0", "release_metadata_snap")
        self.cut_while_a_metadata_snapshot_is_taken(held)
        check_after_a_cut(META)  # which tells this from damage
        run("dmsetup", "create", "convoy-pool", "--uuid", uuid, "--table", table)
        # It is used until the block has been taken for something else.
        for what in ("create_thin", "delete"):
            for number in range(60):
                run("dmsetup", "message", "convoy-pool", "0", f"{what} {9000 + number}")
        with open(META, "rb") as device:
            os.posix_fadvise(device.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            device.seek(held * 4096 + 32)
            self.assertNotEqual(int.from_bytes(device.read(8), "little"), SUPERBLOCK_MAGIC, "the block has no other use yet")
        self.daemon.start()
        self.assertIn("left the pool's metadata snapshot half taken", LOG.read_text())
        self.assertEqual(run("dmsetup", "status", "convoy-pool").stdout.split()[6], str(held))
        self.assertEqual(file_digests(convoy("mount", "db")), before)
        self.assertIn("to release it would destroy the pool", convoy_error("backup", "create", "s1", "--dest", self.url))
        convoy("umount", "db")
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()
        convoy("backup", "create", "s1", "--dest", self.url)
        self.assertEqual(file_digests(convoy("mount", "db")), before)

    def pool_uuid(self) -> str:
        return run("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", "convoy-pool").stdout[len("CONVOY-") :][:36]

    def start_work_device(self, snapshot: str, daemon_pool: str) -> str:
        info = convoy_json("snapshot", "inspect", snapshot)["DriverInfo"]
        name = f"convoy-pool-{info['UUID']}"
        run(
            "dmsetup", "create", name, "--readonly", "-u", f"CONVOY-{daemon_pool}-{info['UUID']}",
            "--table", f"0 131072 thin /dev/mapper/convoy-pool {info['DevID']}",
        )  # fmt: skip
        return name

    def test_a_snapshot_that_somebody_has_open_keeps_nobody_from_anything_else(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("snapshot", "create", "db", "--name", "s1")
        name = self.start_work_device("s1", self.pool_uuid())
        with open(f"/dev/mapper/{name}", "rb"):
            self.assertIn("is in use", convoy_error("snapshot", "delete", "s1"))
            convoy("create", "other", "--size", "64M")
            self.daemon.kill()
            self.daemon.start()
            self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), ["s1"])
            convoy("delete", "other")
        convoy("snapshot", "delete", "s1")

    def test_devices_that_were_only_half_made_are_made_again(self) -> None:
        convoy("create", "db", "--size", "64M")
        pool, volume = self.pool_uuid(), convoy_json("inspect", "db")["UUID"]
        self.daemon.kill()
        run("dmsetup", "remove", "db")
        run("dmsetup", "create", "db", "-u", f"CONVOY-{pool}-{volume}", "--notable")
        self.daemon.start()
        convoy("mount", "db")
        convoy("umount", "db")
        self.daemon.stop()
        shut_down_pool()
        run("dmsetup", "create", "convoy-pool", "-u", f"CONVOY-{pool}-{pool}", "--notable")
        self.daemon.start()
        convoy("mount", "db")
        convoy("umount", "db")

    def test_a_guard_that_outlives_its_daemon_is_waited_for(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("mount", "db")
        guard = int(run("pgrep", "-f", "convoy-suspend-guard").stdout)
        os.kill(guard, signal.SIGSTOP)
        command = subprocess.Popen(
            ["convoy", "--socket", str(SOCKET), "snapshot", "create", "db", "--name", "s1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(1.5)  # the request is in the guard's socket
        self.daemon.kill()
        command.wait()
        threading.Timer(1, os.kill, (guard, signal.SIGCONT)).start()
        self.daemon.start()
        # What the old guard made in the end was undone, or finished: nothing of it is left in the pool.
        for name in convoy_json("inspect", "db")["Snapshots"]:
            convoy("snapshot", "delete", name)
        convoy("umount", "db")

    def test_a_mount_by_hand_survives_a_restart(self) -> None:
        convoy("create", "db", "--size", "64M")
        Path("/mnt/hand").mkdir(exist_ok=True)
        run("mount", "/dev/mapper/db", "/mnt/hand")
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(mounts(), ["/mnt/hand"])
        self.assertEqual(convoy_json("inspect", "db")["MountPoint"], "/mnt/hand")
        # Nor does anybody but its maker end it, unless he says so.
        self.assertIn("is mounted at /mnt/hand, but not by convoy", convoy_error("umount", "db"))
        docker("VolumeDriver.Unmount", Name="db", ID="nobody's")
        self.assertEqual(mounts(), ["/mnt/hand"])
        convoy("umount", "--force", "db")
        self.assertEqual(mounts(), [])

    def test_a_mount_whose_path_leads_elsewhere_is_not_taken_for_unmounted(self) -> None:
        convoy("create", "db", "--size", "64M")
        target = Path("/mnt/above/db")
        target.mkdir(parents=True)
        convoy("mount", "db", "--mountpoint", target)
        run("mount", "-t", "tmpfs", "none", target.parent)
        self.assertIn("is still mounted at /mnt/above/db", convoy_error("umount", "db"))
        self.assertEqual(convoy_json("inspect", "db")["MountPoint"], str(target))
        run("umount", target.parent)
        convoy("umount", "db")
        self.assertEqual(mounts(), [])

    def test_a_mount_point_that_is_gone_or_taken_is_not_mounted_on_again(self) -> None:
        convoy("create", "db", "--size", "64M")
        target = Path("/mnt/gone")
        target.mkdir()
        convoy("mount", "db", "--mountpoint", target)
        self.daemon.stop()
        shut_down_pool()
        target.rmdir()
        self.daemon.start()
        self.assertEqual(convoy_json("inspect", "db")["MountPoint"], "")
        self.assertFalse(target.exists())
        self.assertIn("volume db: the mount point /mnt/gone is not an existing directory", LOG.read_text())
        self.daemon.stop()
        target.mkdir()
        run("mount", "-t", "tmpfs", "none", target)
        self.daemon.start()
        self.assertEqual(mounts(), [])
        self.assertIn("volume db: something else is mounted at /mnt/gone", LOG.read_text())
        run("umount", target)
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(mounts(), [str(target)])
        convoy("umount", "db")

    def test_the_mount_point_of_a_volume_that_others_unmounted_goes_with_it(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        run("umount", mountpoint)
        convoy("delete", "db")
        self.assertFalse(mountpoint.exists())

    def test_devices_of_others_are_not_touched(self) -> None:
        run("dmsetup", "create", "foreign", "-u", "OTHER-1", "--table", f"0 8 linear {os.environ['DISK_ROOT']} 0")
        convoy("create", "db", "--size", "64M")
        self.assertIn("not ours", convoy_error("create", "foreign", "--size", "64M"))
        self.daemon.kill()
        self.daemon.start()
        self.assertIn("foreign", dm_devices())
        run("dmsetup", "remove", "foreign")

    def test_after_a_simulated_reboot_everything_is_back(self) -> None:
        convoy("create", "a", "--size", "64M")
        convoy("create", "b", "--size", "64M")
        convoy("mount", "a")
        docker("VolumeDriver.Mount", Name="b", ID="container")
        Path("/var/lib/convoy/devicemapper/mounts/b/file").write_text("kept")
        self.daemon.stop()
        shut_down_pool()
        self.assertEqual(dm_devices(), [])
        self.daemon.start()
        self.assertEqual(mounts(), ["/var/lib/convoy/devicemapper/mounts/a"])
        self.assertEqual(convoy_json("inspect", "b")["MountPoint"], "")
        self.assertEqual(Path(convoy("mount", "b"), "file").read_text(), "kept")

    def test_a_mount_within_a_mount_comes_back(self) -> None:
        for name in ("a", "z"):
            convoy("create", name, "--size", "64M")
        outer = Path("/mnt/outer")
        outer.mkdir()
        convoy("mount", "z", "--mountpoint", outer)
        (outer / "inner").mkdir()
        convoy("mount", "a", "--mountpoint", outer / "inner")
        self.daemon.stop()
        run("umount", outer / "inner")
        run("umount", outer)
        shut_down_pool()
        self.daemon.start()
        self.assertEqual(mounts(), [str(outer), str(outer / "inner")])
        convoy("umount", "a")
        convoy("umount", "z")

    def test_a_kill_at_any_moment_leaves_volumes_and_snapshots_whole_or_gone(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("mount", "db")
        for step in range(12):
            work = subprocess.Popen(
                ["sh", "-c", f"C='convoy --socket {SOCKET}'; $C snapshot create db --name s{step};"
                 f"$C create v{step} --size 64M; $C snapshot delete s{step}; $C delete v{step}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(0.02 + 0.05 * step)
            self.daemon.kill()
            work.wait()
            self.daemon.start()
            volumes = convoy_json("list")
            self.assertLessEqual(set(volumes), {"db", f"v{step}"})
            devices = sorted(["convoy-pool", *volumes])
            self.assertEqual(dm_devices(), devices, "after kill %d" % step)
            for name in set(volumes) - {"db"}:
                run("fsck.ext4", "-fn", f"/dev/mapper/{name}")
                convoy("delete", name)
            for name in volumes["db"]["Snapshots"]:
                convoy("snapshot", "delete", name)
            self.assertNotIn("SUSPENDED", run("dmsetup", "info", "db").stdout)


class Reboot(unittest.TestCase):
    """The machine itself boots again. The root is on a disk, as it is on a host."""

    def test_pool_volumes_and_mounts_come_back(self) -> None:
        root_disk = os.environ["DISK_ROOT"]
        ROOT.mkdir(parents=True, exist_ok=True)
        if BOOT == 1:
            run("mkfs.ext4", "-q", root_disk)
            run("mount", root_disk, ROOT)
            wipe(DATA, META)
            daemon = Daemon(pool=pool_options())
            convoy("create", "db", "--size", "64M")
            convoy("create", "app", "--size", "64M")
            (ROOT / "elsewhere").mkdir()
            mountpoint = Path(convoy("mount", "db", "--mountpoint", str(ROOT / "elsewhere")))
            (mountpoint / "file").write_bytes(b"x" * MIB)
            docker("VolumeDriver.Mount", Name="app", ID="container")
            convoy("snapshot", "create", "db", "--name", "s1")
            (OUT / "volumes.json").write_text(convoy("list"))
            os.sync()
            (OUT / "reboot").touch()
            daemon.stop()
            return
        run("mount", root_disk, ROOT)
        self.assertEqual(dm_devices(), [])
        # The disks may have got other names.
        run("cp", "-a", DATA, "/dev/other-data")
        daemon = Daemon(pool=pool_options(data="/dev/other-data"))
        volumes = convoy_json("list")
        self.assertEqual(volumes["db"]["MountPoint"], str(ROOT / "elsewhere"))
        self.assertEqual((ROOT / "elsewhere" / "file").read_bytes(), b"x" * MIB)
        self.assertEqual(volumes["app"]["MountPoint"], "")
        self.assertEqual(list(volumes["db"]["Snapshots"]), ["s1"])
        self.assertIn("the pool's devices are now", Path("/var/log/convoy-test.log").read_text())
        convoy("umount", "db")
        convoy("delete", "db", "app")
        daemon.stop()
        shut_down_pool()
        run("umount", ROOT)
        thin_check()


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    cases = [Reboot] if BOOT > 1 else [Restart, Reboot]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    unittest.main(verbosity=2)
