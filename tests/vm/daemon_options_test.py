"""What the daemon's options do, what info shows, and the ways to name things."""
# budget: 800

import grp
import json
import os
import signal
import stat
import subprocess
import time
import unittest
from pathlib import Path

from support import (
    LOG,
    ROOT,
    SOCKET,
    PoolTest,
    convoy,
    convoy_error,
    convoy_json,
    dm_devices,
    mounts,
    pool_options,
    run,
    shut_down_pool,
    thin_check,
)


def mounts_of(target: str) -> list[str]:
    """The options of what is mounted there."""
    return run("findmnt", "-n", "-o", "OPTIONS", target).stdout.strip().split(",")


class References(PoolTest):
    def test_everything_goes_by_name_by_uuid_and_by_the_start_of_a_uuid(self) -> None:
        convoy("create", "db", "--size", "64M")
        uuid = convoy_json("inspect", "db")["UUID"]
        for reference in ("db", uuid, uuid.upper(), uuid[:8]):
            self.assertEqual(json.loads(convoy("inspect", reference))["UUID"], uuid)
        mountpoint = convoy("mount", uuid[:8])
        self.assertEqual(mounts(), [mountpoint])
        convoy("snapshot", "create", uuid[:8], "--name", "s1")
        snapshot = json.loads(convoy("snapshot", "inspect", "s1"))["UUID"]
        self.assertEqual(convoy_json("inspect", "db")["Snapshots"]["s1"]["UUID"], snapshot)
        url = convoy("backup", "create", snapshot[:8], "--dest", self.url)
        self.assertEqual(convoy_json("backup", "inspect", url)["SnapshotUUID"], snapshot)
        convoy("snapshot", "delete", snapshot[:8])
        convoy("umount", uuid)
        convoy("delete", uuid)
        self.assertEqual(convoy("list"), "{}")

    def test_names_that_are_made_up(self) -> None:
        self.assertRegex(convoy("create", "--size", "64M"), r"^volume-[0-9a-f]{16}$")
        volume = next(iter(convoy_json("list")))
        self.assertRegex(convoy("snapshot", "create", volume), r"^snapshot-[0-9a-f]{16}$")
        self.assertEqual(convoy_json("--verbose", "create", "--size", "64M")["Driver"], "devicemapper")

    def test_info_and_list_show_convoys_fields(self) -> None:
        convoy("create", "db", "--size", "64M")
        info = json.loads(convoy("info"))
        self.assertEqual(
            list(info["General"]),
            ["Root", "DriverList", "DefaultDriver", "MountNamespaceFD", "IgnoreDockerDelete", "CreateOnDockerMount", "CmdTimeout"],
        )  # fmt: skip
        driver = info["devicemapper"]
        self.assertEqual(driver["ThinpoolDevice"], "/dev/mapper/convoy-pool")
        self.assertEqual((driver["ThinpoolBlockSize"], driver["DefaultVolumeSize"]), (str(2 << 20), str(100 << 30)))
        self.assertLessEqual({"DataDevice", "MetadataDevice", "ThinpoolSize", "Filesystem", "Root", "Driver"}, set(driver))
        self.assertLess(0, int(driver["ThinpoolUsed"]))
        self.assertLess(int(driver["ThinpoolMetadataUsed"]), int(driver["ThinpoolMetadataSize"]))
        listed = convoy_json("list", "--driver")["db"]
        inspected = convoy_json("inspect", "db")["DriverInfo"]
        self.assertLess(0, int(inspected.pop("Used")))
        self.assertEqual(listed, inspected)
        self.assertEqual(sorted(listed), list(listed))
        self.assertIn('\n\t"db"', convoy("list"))  # indented by tabs


class LogAndSocket(PoolTest):
    options = ("--log-format", "json", "--log", str(LOG), "--socket-group", "daemon")

    def test_lines_of_json_and_a_group_that_may_use_the_socket(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy_error("create", 'quo"te\\', "--size", "64M")
        lines = [json.loads(line) for line in LOG.read_text().splitlines()]
        self.assertEqual({tuple(line) for line in lines}, {("time", "level", "message")})
        self.assertIn(("info", "volume db created: 64.0 MiB of ext4"), [(line["level"], line["message"]) for line in lines])
        self.assertTrue(any('quo"te\\' in line["message"] for line in lines))
        info = SOCKET.stat()
        self.assertEqual((stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid), (0o660, 0, grp.getgrnam("daemon").gr_gid))
        member = ("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--groups", "daemon")
        self.assertIn("db", json.loads(run(*member, "convoy", "--socket", SOCKET, "list").stdout))


class Trim(PoolTest):
    def test_a_deleted_files_blocks_go_back_to_the_pool(self) -> None:
        convoy("create", "db", "--size", "1G")
        self.assertIn("is not mounted; mount it first", convoy_error("trim", "db"))
        file = Path(convoy("mount", "db"), "file")
        file.write_bytes(os.urandom(64 << 20))
        os.sync()
        used = self.used()
        file.unlink()
        os.sync()
        self.assertGreater(int(convoy("trim", "db")), 64 << 20)
        self.assertLess(self.used(), used - (60 << 20))

    def test_of_xfs_counts_each_byte_once(self) -> None:
        # Its four allocation groups have 2 GiB each, and are trimmed as a whole.
        convoy("create", "db", "--size", "8G", "--fs", "xfs")
        mount = mounts_of(convoy("mount", "db"))
        self.assertIn("nouuid", mount)
        self.assertNotIn("discard", mount)
        freed = int(convoy("trim", "db"))
        self.assertLessEqual(freed, 8 << 30)
        self.assertGreater(freed, 7 << 30)

    def test_an_unmount_does_not_wait_for_it(self) -> None:
        # As many steps as there are GiB.
        convoy("create", "db", "--size", "4T")
        convoy("mount", "db")
        trim = subprocess.Popen(
            ["convoy", "--socket", str(SOCKET), "trim", "db"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        time.sleep(1)
        self.assertIsNone(trim.poll())
        convoy("umount", "db")
        answer, _ = trim.communicate(timeout=60)
        self.assertIn("volume 'db' is not mounted any more", answer)

    def used(self) -> int:
        return int(convoy_json("info")["devicemapper"]["ThinpoolUsed"])


class GrownDevices(PoolTest):
    """Devices that are larger at the next start, with the same names."""

    def setUp(self) -> None:
        self.devices = {}
        for name, size in (("data", 256), ("meta", 4)):
            run("truncate", "-s", f"{size}M", f"/tmp/{name}")
            self.devices[name] = run("losetup", "--find", "--show", f"/tmp/{name}").stdout.strip()
            self.addCleanup(run, "losetup", "-d", self.devices[name])
        self.pool = self.devices
        super().setUp()

    def tear_pool_down(self) -> None:
        if self.daemon.process:
            self.daemon.stop()
        shut_down_pool()
        thin_check(self.devices["meta"])

    def grow(self, name: str, size: int) -> None:
        run("truncate", "-s", f"{size}M", f"/tmp/{name}")
        run("losetup", "--set-capacity", self.devices[name])

    def test_all_of_them_is_used_when_the_pool_is_made_again(self) -> None:
        convoy("create", "db", "--size", "64M")
        self.assertEqual(self.sizes(), (256, 4))
        self.daemon.stop()
        self.grow("data", 512)
        self.grow("meta", 8)
        self.daemon.start()  # on the pool as it is
        self.assertEqual(self.sizes(), (256, 4))
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()
        self.assertEqual(self.sizes(), (512, 8))
        self.assertEqual(list(convoy_json("list")), ["db"])
        self.daemon.stop()
        shut_down_pool()
        self.grow("data", 256)
        refused = run("convoy", "--socket", SOCKET, "daemon", "--root", ROOT, *pool_options(**self.devices), check=False)
        self.assertIn("contradicts this root: it has 268435456 bytes", refused.stderr)
        self.grow("data", 512)

    def sizes(self) -> tuple[int, int]:
        info = convoy_json("info")["devicemapper"]
        return int(info["ThinpoolSize"]) >> 20, int(info["ThinpoolMetadataSize"]) >> 20


class OtherNamespace(PoolTest):
    def setUp(self) -> None:
        self.holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "1000"])
        self.addCleanup(self.holder.wait)
        self.addCleanup(self.holder.kill)
        here = os.readlink("/proc/self/ns/mnt")
        while os.readlink(f"/proc/{self.holder.pid}/ns/mnt") == here:
            time.sleep(0.01)
        self.options = ("--mnt-ns", f"/proc/{self.holder.pid}/ns/mnt")
        super().setUp()

    def test_mounts_are_made_there(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = convoy("mount", "db")
        self.assertEqual(mounts(), [])
        self.assertIn(f" {mountpoint} ", Path(f"/proc/{self.holder.pid}/mountinfo").read_text())
        self.assertEqual(convoy_json("inspect", "db")["MountPoint"], mountpoint)
        self.assertIn("is mounted at", convoy_error("delete", "db"))
        convoy("umount", "db")
        self.assertNotIn(mountpoint, Path(f"/proc/{self.holder.pid}/mountinfo").read_text())


class SlowPrograms(PoolTest):
    options = ("--cmd-timeout", "2s", "--ignore-config-file")

    def test_a_program_that_hangs_is_ended_and_leaves_no_volume(self) -> None:
        self.assertIn("there is no configuration file to ignore", LOG.read_text())
        # The daemon finds mkfs by its PATH.
        slow = Path("/tmp/slow")
        slow.mkdir()
        (slow / "mkfs.ext4").write_text("#!/bin/sh\nexec sleep 1000\n")
        (slow / "mkfs.ext4").chmod(0o755)
        self.daemon.stop()
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{slow}:{path}"
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        self.daemon.start()
        self.assertIn("did not end within 2 s", convoy_error("create", "db", "--size", "64M"))
        self.assertEqual((convoy("list"), dm_devices()), ("{}", ["convoy-pool"]))
        (slow / "mkfs.ext4").write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
        self.assertIn("mkfs.ext4 ended with status 3: the disk is on fire", convoy_error("create", "db", "--size", "64M"))
        self.assertEqual((convoy("list"), dm_devices()), ("{}", ["convoy-pool"]))
        self.stop_a_slow_mkfs(slow / "mkfs.ext4")
        (slow / "mkfs.ext4").unlink()
        self.assertEqual(convoy("create", "db", "--size", "64M"), "db")

    def stop_a_slow_mkfs(self, mkfs: Path) -> None:
        """By Ctrl-C, and by the daemon's own end, which does not wait for it."""
        mkfs.write_text("#!/bin/sh\nexec sleep 1000\n")
        self.daemon.stop()
        self.daemon.options = ("--cmd-timeout", "1h")
        self.daemon.start()
        for how in ("interrupt", "stop the daemon"):
            create = subprocess.Popen(["convoy", "-s", SOCKET, "create", "db", "--size", "64M"], stdout=subprocess.PIPE)
            while "db" not in dm_devices():
                self.assertIsNone(create.poll(), "it ended before it could be stopped")
                time.sleep(0.05)
            if how == "interrupt":
                create.send_signal(signal.SIGINT)
                self.assertEqual(create.wait(timeout=20), 130)
            else:
                begin = time.monotonic()
                self.assertEqual(self.daemon.stop(), 0)
                self.assertLess(time.monotonic() - begin, 20)
                self.assertNotEqual(create.wait(timeout=20), 0)
                self.daemon.start()
            create.communicate()
            self.assertEqual((convoy("list"), dm_devices()), ("{}", ["convoy-pool"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
