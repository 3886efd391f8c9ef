"""Backups that Rancher Convoy 0.5.2 made are listed, shown and restored, and ours go beside them."""
# budget: 300

import json
import shutil
import unittest
from pathlib import Path

from support import MIB, PoolTest, convoy, convoy_error, convoy_json, device_digest, docker, run

FIXTURE = Path(__file__).parent.parent / "fixtures/convoy-0.5.2-store"
DIGESTS = dict(reversed(line.split()) for line in (FIXTURE / "snapshot-device.sha256").read_text().splitlines())


class ConvoyStore(PoolTest):
    def setUp(self) -> None:
        super().setUp()
        shutil.copytree(FIXTURE / "convoy-objectstore", self.destination / "convoy-objectstore")
        self.first = f"{self.url}?backup=backup-40a37af6368a44e1&volume=db"
        self.second = f"{self.url}?backup=backup-0a05bad14b0e4dd4&volume=db"

    def test_they_are_listed(self) -> None:
        backups = convoy_json("backup", "list", self.url)
        self.assertEqual(list(backups), [self.first, self.second])
        # What Convoy itself printed.
        expected = {
            "BackupName": "backup-0a05bad14b0e4dd4",
            "BackupURL": self.second,
            "CreatedTime": "Mon Nov 23 01:05:34 +0000 2026",
            "DriverName": "devicemapper",
            "SnapshotCreatedAt": "Mon Nov 23 01:05:33 +0000 2026",
            "SnapshotName": "db-s2",
            "VolumeCreatedAt": "Mon Nov 23 01:05:21 +0000 2026",
            "VolumeName": "db",
            "VolumeSize": "67108864",
        }
        self.assertEqual(backups[self.second], expected)
        self.assertEqual(convoy_json("backup", "inspect", self.second.replace("&", "\\u0026")), expected)
        self.assertEqual(convoy("backup", "list", self.url, "--volume-name", "d"), "{}")
        table = convoy("backup", "list", self.url, "-o", "table").splitlines()
        self.assertRegex(table[2], r"  db +db-s2 +64\.0 MiB +- +vfs://")

    def test_they_are_restored_and_backed_up_anew(self) -> None:
        for url, snapshot in ((self.first, "db-s1"), (self.second, "db-s2")):
            self.assertEqual(convoy("create", snapshot.upper(), "--backup", url), snapshot.upper())
            volume = convoy_json("inspect", snapshot.upper())["DriverInfo"]
            self.assertEqual((volume["Size"], volume["Filesystem"]), (str(64 * MIB), "ext4"))
            self.assertEqual(device_digest(volume["Device"]), DIGESTS[snapshot])
        # Docker's Create of what is there agrees if the backup is the same.
        create = lambda url: docker("VolumeDriver.Create", Name="DB-S1", Opts={"backup": url}).get("Err", "")  # noqa: E731
        self.assertEqual(create(self.first), "")
        self.assertIn("exists already", create(self.second))

        mountpoint = Path(convoy("mount", "DB-S2"))
        self.assertTrue((mountpoint / "random.bin").is_file())
        (mountpoint / "new").write_text("x")
        convoy("umount", "DB-S2")
        convoy("snapshot", "create", "DB-S2", "--name", "ours")
        ours = convoy("backup", "create", "ours", "--dest", self.url)
        self.assertEqual(set(convoy_json("backup", "list", self.url)), {ours, self.first, self.second})
        self.assertEqual(convoy_json("backup", "verify", self.url), {"Backups": 1, "Damaged": []})
        convoy("backup", "delete", ours)
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [self.first, self.second])

    def test_what_can_not_be_done_with_them_is_said(self) -> None:
        for words in (("backup", "delete", self.first), ("backup", "verify", self.first)):
            self.assertIn("made by Rancher Convoy", convoy_error(*words))
        self.assertIn("has no backup backup-0 ", convoy_error("create", "x", "--backup", f"{self.url}?backup=backup-0&volume=db"))
        self.assertIn("a size of", convoy_error("create", "x", "--backup", self.first, "--size", "1G"))

    def test_a_damaged_block(self) -> None:
        block = max(self.destination.rglob("*.blk"), key=lambda path: path.stat().st_size)
        block.write_bytes(block.read_bytes()[:-1])
        self.assertIn(block.name, convoy_error("create", "x", "--backup", self.first))
        self.assertEqual(convoy("list"), "{}")
        result = run("convoy", "create", "x", "--backup", self.first, "--allow-damaged")
        self.assertEqual(result.stdout, "x\n")
        self.assertRegex(result.stderr, rf"lost: bytes \d+ to \d+: .*{block.name}")
        record = next(self.destination.rglob("backup_*.cfg"))
        record.write_text(json.dumps({"Name": record.stem}))
        self.assertEqual(len(convoy_json("backup", "list", self.url)), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
