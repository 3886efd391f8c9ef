"""Garbage in a destination: what would be freed is told, what nobody needs goes, and the rest can be restored."""
# budget: 400
# machine: --memory 2G

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import KIB, MIB, PoolTest, convoy, convoy_error, convoy_json, device_digest, file_digest, run, snapshot_device

import second_reader


class Gc(PoolTest):
    def setUp(self) -> None:
        super().setUp()
        convoy("create", "db", "--size", "256M")
        self.mountpoint = Path(convoy("mount", "db"))
        self.addCleanup(run, "convoy", "umount", "db", check=False)

    def back_up(self, snapshot: str) -> str:
        os.sync()
        convoy("snapshot", "create", "db", "--name", snapshot)
        return convoy("backup", "create", snapshot, "--dest", self.url)

    def overwrite(self, file: str, begin: int, length: int) -> None:
        with (self.mountpoint / file).open("r+b") as content:
            content.seek(begin)
            content.write(os.urandom(length))

    def make_half_dead(self) -> str:
        """Of the packs of a backup that is gone, the one that is left needs little."""
        (self.mountpoint / "file").write_bytes(os.urandom(48 * MIB))
        first = self.back_up("s1")
        self.overwrite("file", 0, 40 * MIB)
        second = self.back_up("s2")
        convoy("backup", "delete", first)
        return second

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self.destination.rglob("*") if path.is_file())

    def gc(self, *words: str) -> tuple[dict, str]:
        result = run("convoy", "backup", "gc", self.url, *words)
        return json.loads(result.stdout), result.stderr

    def check_restore(self, url: str, snapshot: str) -> None:
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        convoy("create", "copy", "--backup", url)
        with snapshot_device(snapshot) as device:
            digest = device_digest(device)
        self.assertEqual(device_digest(convoy_json("inspect", "copy")["DriverInfo"]["Device"]), digest)
        convoy("delete", "copy")
        # And the second reader, which knows the store's page only.
        backup, lineage = (url.split(f"{name}=")[1][:36] for name in ("backup", "volume"))
        with tempfile.NamedTemporaryFile() as output:
            second_reader.restore(self.destination, lineage, backup, Path(output.name))
            self.assertEqual(file_digest(output.name), digest)

    def test_half_dead_packs_are_rewritten(self) -> None:
        url = self.make_half_dead()
        before = self.stored()
        plan, told = self.gc("--dry-run")
        self.assertEqual(self.stored(), before)
        self.assertRegex(told, r"^0 packs would be removed, \d+ rewritten: \d+\.\d MiB would be free$")
        done, told = self.gc()
        self.assertRegex(told, r"^0 packs removed, \d+ rewritten: \d+\.\d MiB freed$")
        key = lambda pack: (pack["Volume"], pack["Pack"])  # noqa: E731
        for planned, pack in zip(sorted(plan["Packs"], key=key), sorted(done["Packs"], key=key), strict=True):
            self.assertEqual((key(planned), planned["Action"], planned["Size"]), (key(pack), pack["Action"], pack["Size"]))
        self.assertEqual(before - self.stored(), sum(pack["Freed"] for pack in done["Packs"]))
        self.assertLess(self.stored(), 70 * MIB)
        self.check_restore(url, "s2")
        self.assertEqual(self.gc()[0], {"Packs": [], "Notes": [], "Failures": []})

        # The next backup builds on it, and is all that is left in the end.
        self.overwrite("file", 44 * MIB, 100 * KIB)
        third = self.back_up("s3")
        convoy("backup", "delete", url)
        self.gc()
        self.check_restore(third, "s3")
        convoy("backup", "delete", third)
        self.assertEqual([path.name for path in self.destination.rglob("*") if path.is_file()], ["store.json"])

    def test_while_a_restore_reads(self) -> None:
        url = self.make_half_dead()
        restore = subprocess.Popen(["convoy", "create", "beside", "--backup", url], stdout=subprocess.DEVNULL)
        self.gc()
        self.assertEqual(restore.wait(timeout=120), 0)
        with snapshot_device("s2") as device:
            digest = device_digest(device)
        self.assertEqual(device_digest(convoy_json("inspect", "beside")["DriverInfo"]["Device"]), digest)
        convoy("delete", "beside")
        self.check_restore(url, "s2")

    def test_a_volume_that_can_not_be_read_does_not_stop_the_others(self) -> None:
        url = self.make_half_dead()
        convoy("create", "other", "--size", "64M")
        convoy("snapshot", "create", "other", "--name", "o1")
        other = convoy("backup", "create", "o1", "--dest", self.url)
        (record,) = self.destination.rglob(f"backups/{other.split('backup=')[1][:36]}.json.zst")
        record.write_bytes(record.read_bytes()[:-10])
        result = run("convoy", "backup", "gc", self.url, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(record.name, result.stderr)
        self.assertEqual(len(json.loads(result.stdout)["Failures"]), 1)
        self.assertTrue(json.loads(result.stdout)["Packs"])
        convoy("backup", "delete", other)
        self.check_restore(url, "s2")

    def test_what_is_no_destination_is_refused(self) -> None:
        for words in (("gc",), ("unlock",)):
            self.assertIn("/nowhere/ is not an existing", convoy_error("backup", *words, "vfs:///nowhere/"))
            self.assertIn("holds no backup store", convoy_error("backup", *words, f"vfs://{tempfile.mkdtemp()}/"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
