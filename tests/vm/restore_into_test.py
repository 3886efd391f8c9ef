"""A volume becomes what it was in a backup, or stays what it is: also when the daemon is killed on the way."""
# budget: 500
# machine: --memory 2G

import json
import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

from support import MIB, PoolTest, backup_create, convoy, convoy_error, convoy_json, device_digest, dm_devices, docker, run, snapshot_device



class RestoreInto(PoolTest):
    def setUp(self) -> None:
        super().setUp()
        convoy("create", "db", "--size", "512M")
        self.change("first", 60)
        convoy("snapshot", "create", "db", "--name", "s1")
        self.backup = convoy("backup", "create", "s1", "--dest", self.url)
        self.before = self.digest_of("s1")
        self.change("second", 40)
        (self.mountpoint / "first").unlink()
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s2")
        self.after = self.digest_of("s2")

    def change(self, name: str, megabytes: int) -> None:
        self.mountpoint = Path(convoy("mount", "db"))
        (self.mountpoint / name).write_bytes(os.urandom(megabytes * MIB))
        os.sync()

    @staticmethod
    def digest_of(snapshot: str) -> str:
        with snapshot_device(snapshot) as device:
            return device_digest(device)

    @staticmethod
    def digest() -> str:
        return device_digest(convoy_json("inspect", "db")["DriverInfo"]["Device"])

    def test_it_becomes_what_it_was(self) -> None:
        convoy("backup", "create", "s2", "--dest", self.url)
        convoy("mount", "db")
        self.assertIn("is mounted at", convoy_error("restore", self.backup, "--into", "db"))
        convoy("umount", "db")
        self.assertEqual(convoy("restore", self.backup, "--into", "db"), "db")
        self.assertEqual(self.digest(), self.before)
        self.assertEqual(dm_devices(), ["convoy-pool", "db"])
        # As ever: snapshots are there, and the next backup is built on what the volume became, of which nothing is stored again.
        self.assertEqual(set(convoy_json("inspect", "db")["Snapshots"]), {"s1", "s2"})
        self.assertEqual(self.digest_of("s2"), self.after)
        self.change("third", 1)
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s3")
        url, kind, read, stored = backup_create("s3", self.url)
        self.assertEqual(kind, "incremental")
        self.assertLess(read, 120 * MIB)
        self.assertLess(stored, 4 * MIB)
        expected = self.digest()
        convoy("snapshot", "delete", "s1")
        self.change("fourth", 1)
        convoy("umount", "db")
        convoy("restore", url, "--into", "db")
        self.assertEqual(self.digest(), expected)

    def test_what_is_there_is_not_fetched(self) -> None:
        convoy("restore", self.backup, "--into", "db")
        # It holds the backup already: the packs are not needed.
        for pack in self.destination.rglob("*.data"):
            pack.unlink()
        convoy("restore", self.backup, "--into", "db")
        self.assertEqual(self.digest(), self.before)

    def test_what_is_empty_in_the_backup_goes_back_to_the_pool(self) -> None:
        convoy("restore", self.backup, "--into", "db")
        used = int(convoy_json("inspect", "db")["DriverInfo"]["Used"])
        convoy("create", "copy", "--backup", self.backup)
        # Blocks of files that were deleted before the backup is all that a fresh copy lacks.
        self.assertLessEqual(used, int(convoy_json("inspect", "copy")["DriverInfo"]["Used"]) + 32 * MIB)

    def test_a_failure_leaves_it_as_it_is(self) -> None:
        (tree,) = self.destination.rglob("*.tree")
        whole = tree.read_bytes()
        tree.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        self.assertIn(tree.name, convoy_error("restore", self.backup, "--into", "db"))
        self.assertEqual(self.digest(), self.after)
        self.assertEqual(dm_devices(), ["convoy-pool", "db"])
        tree.write_bytes(whole)
        convoy("create", "small", "--size", "64M")
        self.assertIn("has 67108864 bytes, and the backup's volume has 536870912", convoy_error("restore", self.backup, "--into", "small"))
        convoy("create", "other", "--size", "512M", "--fs", "xfs")
        self.assertIn("has the file system xfs", convoy_error("restore", self.backup, "--into", "other"))
        self.assertIn("no volume 'x'", convoy_error("restore", self.backup, "--into", "x"))
        device = convoy_json("inspect", "db")["DriverInfo"]["Device"]
        with open(device, "rb"):  # seen when all is restored
            self.assertIn("is in use", convoy_error("restore", self.backup, "--into", "db"))
        self.assertEqual(self.digest(), self.after)

    def test_a_volume_that_is_mounted_elsewhere_is_refused_at_once(self) -> None:
        device = convoy_json("inspect", "db")["DriverInfo"]["Device"]
        elsewhere = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", 'mount "$0" /mnt && echo mounted && read line', device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(elsewhere.communicate, "\n")
        self.assertEqual(elsewhere.stdout.readline(), "mounted\n")
        transaction = run("dmsetup", "status", "convoy-pool").stdout.split()[3]
        self.assertIn("in another mount namespace", convoy_error("restore", self.backup, "--into", "db"))
        self.assertEqual(run("dmsetup", "status", "convoy-pool").stdout.split()[3], transaction)  # nothing was made

    def start(self) -> subprocess.Popen:
        restore = subprocess.Popen(["convoy", "restore", self.backup, "--into", "db"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(restore.communicate)
        while len(dm_devices()) < 3:
            self.assertIsNone(restore.poll())
            time.sleep(0.01)
        return restore

    def test_meanwhile_it_can_not_be_used(self) -> None:
        # So much that it takes a while.
        self.change("large", 250)
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s3")
        self.backup = convoy("backup", "create", "s3", "--dest", self.url)
        self.change("large", 250)
        convoy("umount", "db")
        self.after = self.digest()
        restore = self.start()
        for words in (("mount", "db"), ("delete", "db"), ("snapshot", "create", "db"), ("restore", self.backup, "--into", "db")):
            self.assertRegex(convoy_error(*words), r"'db' is being restored by job \d+ \(restore of db\)")
        self.assertIn("is being restored", docker("VolumeDriver.Mount", Name="db", ID="c")["Err"])
        self.assertEqual(list(convoy_json("list")), ["db"])
        restore.send_signal(signal.SIGINT)
        output, _ = restore.communicate(timeout=60)
        self.assertEqual(restore.returncode, 130)
        self.assertIn("cancelled", json.loads(output)["Error"])
        self.assertEqual(self.digest(), self.after)
        self.assertEqual(dm_devices(), ["convoy-pool", "db"])

    def test_a_kill_at_any_moment_leaves_the_one_or_the_other(self) -> None:
        seen = set()
        delay = 0.0
        while len(seen) < 2 and delay < 20:
            restore = subprocess.Popen(["convoy", "restore", self.backup, "--into", "db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            self.daemon.kill()
            restore.wait(timeout=60)
            self.daemon.start()
            digest = self.digest()
            self.assertIn(digest, (self.before, self.after))
            seen.add(digest)
            self.assertEqual(dm_devices(), ["convoy-pool", "db"])
            delay = delay * 1.3 + 0.1
        self.assertEqual(seen, {self.before, self.after})
        convoy("snapshot", "create", "db", "--name", "s3")
        convoy("backup", "create", "s3", "--dest", self.url)


if __name__ == "__main__":
    unittest.main(verbosity=2)
