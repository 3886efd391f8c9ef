"""Damaged stores: what is broken is named, the rest can be had, and the next backup is whole."""
# budget: 800
# machine: --memory 2G

import json
import os
import re
import unittest
from pathlib import Path

from support import KIB, MIB, PoolTest, backup_create, convoy, convoy_error, convoy_json, device_digest, run, snapshot_device


class Verify(PoolTest):
    def setUp(self) -> None:
        super().setUp()
        convoy("create", "db", "--size", "128M")
        self.mountpoint = Path(convoy("mount", "db"))
        (self.mountpoint / "file").write_bytes(os.urandom(24 * MIB))
        convoy("snapshot", "create", "db", "--name", "s1")
        self.first = convoy("backup", "create", "s1", "--dest", self.url)

    def tearDown(self) -> None:
        convoy("umount", "db")
        super().tearDown()

    def packs(self, kind: str) -> list[Path]:
        return sorted(self.destination.rglob(f"*.{kind}"))

    @staticmethod
    def name_of(pack: Path) -> str:
        return f"{pack.parent.name}/{pack.name}"

    def broken(self, *words: str) -> tuple[dict, str]:
        """What a verification prints that finds something."""
        result = run("convoy", "backup", "verify", *words, check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        report = json.loads(result.stdout)
        self.assertTrue(report["Damaged"])
        return report, result.stderr

    def test_what_is_whole(self) -> None:
        for words in ([self.first], [self.url], [self.url, "--quick"]):
            self.assertEqual(convoy_json("backup", "verify", *words), {"Backups": 1, "Damaged": []})
        self.assertIn("no backup", convoy_error("backup", "verify", self.first[:-4] + "0000"))
        self.assertIn("there is no compression", convoy_error("backup", "create", "s1", "--dest", self.url, "--compression", "lzma"))

    def test_the_list_for_people(self) -> None:
        heading, row = convoy("backup", "list", self.url, "-o", "table").splitlines()
        self.assertEqual(heading.split(), ["DATE", "VOLUME", "SNAPSHOT", "SIZE", "STORED", "URL"])
        self.assertRegex(row, rf"  db +s1 +128\.0 MiB +24\.\d MiB +{re.escape(self.first)}$")

    def test_a_flipped_byte_and_a_missing_pack(self) -> None:
        pack = self.packs("data")[0]
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 1
        pack.write_bytes(content)
        self.assertEqual(convoy_json("backup", "verify", "--quick", self.url)["Damaged"], [])
        report, told = self.broken(self.first)
        (part,) = report["Damaged"]
        self.assertEqual((part["BackupURL"], part["Size"], part["Pack"]), (self.first, 16 * KIB, self.name_of(pack)))
        self.assertIn(f"bytes {part['Offset']} to {part['Offset'] + part['Size']} of the volume", told)

        self.assertIn(pack.name, convoy_error("create", "copy", "--backup", self.first))
        self.assertEqual(list(convoy_json("list")), ["db"])
        result = run("convoy", "create", "copy", "--backup", self.first, "--allow-damaged")
        self.assertEqual(result.stdout, "copy\n")
        end = part["Offset"] + part["Size"]
        self.assertRegex(result.stderr, rf"convoy: lost: bytes {part['Offset']} to {end}: backup [0-9a-f-]*, .* slot ")
        # All but the lost range is there.
        with snapshot_device("s1") as device:
            self.check_all_but(range(part["Offset"], end), Path(device), Path(convoy_json("inspect", "copy")["DriverInfo"]["Device"]))
        convoy("delete", "copy")

        # Nothing near the broken chunk changes, and the next backup has it all the same, and nothing in that pack any more.
        (self.mountpoint / "small").write_bytes(os.urandom(100))
        convoy("snapshot", "create", "db", "--name", "s2")
        second, kind, _, stored = backup_create("s2", self.url)
        self.assertEqual(kind, "incremental")
        self.assertLess(stored, pack.stat().st_size + 4 * MIB)
        self.assertEqual(convoy_json("backup", "verify", second)["Damaged"], [])
        pack.unlink()
        for words in ([self.url], [self.url, "--quick"]):
            report, _ = self.broken(*words)
            self.assertEqual({part["Pack"] for part in report["Damaged"]}, {self.name_of(pack)})
            self.assertEqual({part["BackupURL"] for part in report["Damaged"]}, {self.first})

        convoy("snapshot", "create", "db", "--name", "s3")
        third, _, _, stored = backup_create("s3", self.url)
        self.assertLess(stored, MIB)  # there is nothing to repair any more
        self.assertEqual(convoy_json("backup", "verify", third)["Damaged"], [])
        self.check_restore(third, "s3")

    def check_all_but(self, lost: range, original: Path, copy: Path) -> None:
        """A piece at a time: User Mode Linux maps each page of a process by itself, and the host allows 65530 maps."""
        with original.open("rb") as left, copy.open("rb") as right:
            for offset in range(0, 128 * MIB, 16 * KIB):
                expected = left.read(16 * KIB)
                self.assertEqual(right.read(16 * KIB), bytes(16 * KIB) if offset in lost else expected)

    def check_restore(self, url: str, snapshot: str) -> None:
        convoy("create", "copy", "--backup", url)
        with snapshot_device(snapshot) as device:
            self.assertEqual(device_digest(convoy_json("inspect", "copy")["DriverInfo"]["Device"]), device_digest(device))
        convoy("delete", "copy")

    def test_a_broken_tree_or_record_is_in_no_backup_s_way(self) -> None:
        tree = self.packs("tree")[0]
        content = bytearray(tree.read_bytes())
        content[100] ^= 1
        tree.write_bytes(content)
        # Nobody has verified: the backup itself finds it.
        convoy("snapshot", "create", "db", "--name", "s2")
        second = convoy("backup", "create", "s2", "--dest", self.url, "--compression", "zstd:5")
        self.assertEqual(convoy_json("backup", "verify", second)["Damaged"], [])
        self.check_restore(second, "s2")

        (record,) = self.destination.rglob(f"backups/{second.split('=')[1].split('&')[0]}.json.zst")
        record.write_bytes(record.read_bytes()[:-100])
        report, told = self.broken(self.url)
        self.assertIn(record.name, told)
        self.assertNotIn("Pack", [part for part in report["Damaged"] if part["BackupURL"] == second][0])
        convoy("snapshot", "create", "db", "--name", "s3")
        third = convoy("backup", "create", "s3", "--dest", self.url, "--compression", "none")
        self.assertEqual(convoy_json("backup", "verify", third)["Damaged"], [])
        self.check_restore(third, "s3")


if __name__ == "__main__":
    unittest.main(verbosity=2)
