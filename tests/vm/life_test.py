"""The life of volumes, snapshots and backups through the command line, for each file system and pool block size."""
# budget: 1000
# machine: --memory 2G

import os
import unittest
from pathlib import Path

from support import (
    KIB, MIB, PoolTest, backup_create, compare_devices, convoy, convoy_json, file_digests, mounts, run, snapshot_device,
)

# Multiples of all pool blocks here; xfs takes no less than 300 MiB.
SIZES = {"ext4": 64 * MIB, "xfs": 304 * MIB}


class Life(PoolTest):
    __test__ = False
    size = 0

    def same(self, snapshot: str, volume: str) -> None:
        """The volume's device is the snapshot, bit for bit."""
        with snapshot_device(snapshot) as device:
            compare_devices(device, f"/dev/mapper/{volume}")

    def test_from_create_to_restore(self) -> None:
        self.assertEqual(convoy("create", "db", "--size", str(self.size)), "db")
        mountpoint = Path(convoy("mount", "db"))
        self.assertEqual(mountpoint, Path("/var/lib/convoy/devicemapper/mounts/db"))
        self.assertIn(str(mountpoint), mounts())
        self.assertEqual(convoy("mount", "db"), str(mountpoint))  # once more is no error

        (mountpoint / "random").write_bytes(os.urandom(20 * MIB))
        (mountpoint / "text").write_text("a line of text\n" * 300_000)
        (mountpoint / "doomed").write_bytes(os.urandom(12 * MIB))
        os.sync()
        first_files = file_digests(mountpoint)
        mapped = int(convoy_json("inspect", "db")["DriverInfo"]["Used"])
        self.assertEqual(convoy("snapshot", "create", "db", "--name", "s1"), "s1")

        # A page in the middle, a new file, one that goes and whose blocks are given back.
        with (mountpoint / "random").open("r+b") as file:
            file.seek(10 * MIB)
            file.write(os.urandom(4 * KIB))
        (mountpoint / "new").write_bytes(os.urandom(MIB))
        (mountpoint / "doomed").unlink()
        os.sync()
        run("fstrim", mountpoint)
        second_files = file_digests(mountpoint)
        convoy("snapshot", "create", "db", "--name", "s2")

        first, read = self.back_up("s1", "full")
        self.assertLessEqual(read, mapped * 1.01, "more than what is mapped was read")
        self.assertGreater(read, 36 * MIB)
        second, read = self.back_up("s2", "incremental")
        block = int(self.pool["thinpoolblocksize"]) * 512
        self.assertLess(read, max(12 * block, 8 * MIB), "more than what has changed was read")
        self.assertEqual(set(convoy_json("backup", "list", self.url)), {first, second})
        self.check_inspect(second)

        # Another line of time for the volume, which the backups must not see.
        (mountpoint / "random").write_bytes(b"gone")

        self.assertEqual(convoy("create", "one", "--backup", first), "one")
        self.assertEqual(convoy("create", "two", "--backup", second.replace("&", r"\u0026")), "two")
        self.same("s1", "one")
        self.same("s2", "two")
        self.check_files("one", first_files)
        self.check_files("two", second_files)

        # Without the first, the second is as whole as before; without both, the destination holds no pack.
        convoy("backup", "delete", first)
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [second])
        convoy("create", "three", "--backup", second)
        self.same("s2", "three")
        convoy("backup", "delete", second)
        self.assertEqual(convoy("backup", "list", self.url), "{}")
        self.assertEqual([path.name for path in self.destination.rglob("*") if path.is_file()], ["store.json"])

        convoy("umount", "db")
        self.assertFalse(mountpoint.exists())
        convoy("snapshot", "delete", "s1")
        self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), ["s2"])
        convoy("delete", "db", "one", "two", "three")
        self.assertEqual(convoy("list"), "{}")
        info = convoy_json("info")["devicemapper"]
        self.assertEqual(info["ThinpoolUsed"], info["ThinpoolBlockSize"], "more than the label's block is used")

    def back_up(self, snapshot: str, kind: str) -> tuple[str, int]:
        url, made, read, _ = backup_create(snapshot, self.url)
        self.assertEqual(made, kind)
        self.assertRegex(url, rf"^{self.url}\?backup=[0-9a-f-]{{36}}&volume=[0-9a-f-]{{36}}$")
        return url, read

    def check_inspect(self, url: str) -> None:
        backup = convoy_json("backup", "inspect", url)
        volume = convoy_json("inspect", "db")
        snapshot = convoy_json("snapshot", "inspect", "s2")
        expected = {
            "BackupURL": url,
            "BackupUUID": url.split("backup=")[1][:36],
            "DriverName": "devicemapper",
            "VolumeUUID": volume["UUID"],
            "VolumeName": "db",
            "VolumeSize": str(self.size),
            "VolumeCreatedAt": volume["CreatedTime"],
            "SnapshotUUID": snapshot["UUID"],
            "SnapshotName": "s2",
            "SnapshotCreatedAt": snapshot["CreatedTime"],
        }
        self.assertEqual({key: backup[key] for key in expected}, expected)
        self.assertEqual(set(backup) - set(expected), {"BackupName", "CreatedTime", "StoredSize"})
        self.assertRegex(backup["BackupName"], r"^backup-[0-9a-f]{16}$")

    def check_files(self, volume: str, expected: dict[str, str]) -> None:
        mountpoint = convoy("mount", volume)
        self.assertEqual(file_digests(mountpoint), expected)
        convoy("umount", volume)
        # Mounting has replayed the journal: it is the snapshot no more, so the device is compared before.


def cases() -> list[type]:
    classes = []
    for filesystem in ("ext4", "xfs"):
        for sectors in (128, 4096, 32768):
            name = f"{filesystem}_{sectors // 2}_KiB_blocks"
            pool = {"fs": filesystem, "thinpoolblocksize": str(sectors)}
            classes.append(type(name, (Life,), {"__test__": True, "size": SIZES[filesystem], "pool": pool}))
    return classes


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases())


if __name__ == "__main__":
    unittest.main(verbosity=2)
