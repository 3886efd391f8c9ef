"""Disks that can't be read or written any more, in part or in whole, under the pool: whoever needs what is there is told what, everybody
else goes on, and when the disk is mended, so does the rest."""
# budget: 600
# machine: --disk data=1G --disk meta=64M

import json
import os
import re
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from support import (
    DATA, META, MIB, PoolTest, allow_kernel, compare_devices, convoy, convoy_error, convoy_json, device_digest, run, shut_down_pool,
    snapshot_device, wait_until,
)

BUILD = Path(os.environ["CONVOY_BUILD_DIR"])

SECTOR = 512
# What the kernel says of such disks.
TROUBLE = "I/O error|lost .*page write|EXT4-fs|JBD2|Aborting journal|device-mapper: "


class Disk:
    """A dm device of the size of a disk, parts of which can be bad."""

    def __init__(self, name: str, below: str) -> None:
        self.name, self.below = name, below
        self.sectors = int(run("blockdev", "--getsz", below).stdout)
        self.path = f"/dev/mapper/{name}"
        run("dmsetup", "create", name, "--table", self.good(0, self.sectors))

    def good(self, begin: int, end: int) -> str:
        return f"{begin} {end - begin} linear {self.below} {begin}" if begin < end else ""

    def set(self, *lines: str) -> None:
        run("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        table = "\n".join(line for line in lines if line)
        run("bash", "-c", f"printf '%s\\n' '{table}' | dmsetup load {self.name}")
        run("dmsetup", "resume", self.name)

    def mend(self) -> None:
        self.set(self.good(0, self.sectors))

    def spoil(self, begin: int, count: int) -> None:
        """These sectors can neither be read nor written."""
        end = begin + count
        self.set(self.good(0, begin), f"{begin} {count} error", self.good(end, self.sectors))

    def refuse_writes(self) -> None:
        self.set(f"0 {self.sectors} flakey {self.below} 0 0 3600 1 error_writes")

    def remove(self) -> None:
        run("dmsetup", "remove", "--retry", self.name)


class BadDisks(PoolTest):
    pool = {"data": "/dev/mapper/disk-data", "meta": "/dev/mapper/disk-meta", "thinpoolblocksize": "128"}
    disks = ("disk-data", "disk-meta")

    def setUp(self) -> None:
        allow_kernel(TROUBLE)
        self.data, self.meta = Disk("disk-data", DATA), Disk("disk-meta", META)
        self.addCleanup(self.remove_disks)
        super().setUp()

    def remove_disks(self) -> None:
        """After a failure, with all that stands on them."""
        if self.daemon.process:
            self.daemon.kill()
        shut_down_pool(self.disks)
        self.data.remove()
        self.meta.remove()

    def make(self, name: str = "db") -> Path:
        """A volume with a file that is in its snapshot."""
        convoy("create", name, "--size", "64M")
        file = Path(convoy("mount", name), "file")
        file.write_bytes(os.urandom(8 * MIB))
        convoy("snapshot", "create", name, "--name", f"{name}-1")
        return file

    def place_of(self, snapshot: str, offset: int) -> int:
        """The sector of the data device at which this byte of a snapshot is."""
        thin_id = convoy_json("snapshot", "inspect", snapshot)["DriverInfo"]["DevID"]
        run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
        dump = run("convoy-pdata_tools", "thin_dump", "-m", "--dev-id", thin_id, self.meta.path).stdout
        run("dmsetup", "message", "convoy-pool", "0", "release_metadata_snap")
        block = offset // (64 * 1024)
        pattern = r'(?:single_mapping origin_block="(\d+)" data_block="(\d+)")|(?:range_mapping origin_begin="(\d+)" data_begin="(\d+)" length="(\d+)")'
        for one, data, first, begin, length in re.findall(pattern, dump):
            if one and int(one) == block:
                return int(data) * 128
            if first and int(first) <= block < int(first) + int(length):
                return (int(begin) + block - int(first)) * 128
        raise AssertionError(f"byte {offset} of {snapshot} is not mapped")

    def repair(self) -> None:
        """As docs/operations.md tells."""
        convoy("umount", "--force", "db")
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool(self.disks)
        self.data.mend()
        self.meta.mend()
        run("thin_check", "--clear-needs-check-flag", self.meta.path)
        self.daemon.start()

    @staticmethod
    def place_of_file(snapshot: str) -> int:
        """Where in the volume the first extent of its file begins."""
        with snapshot_device(snapshot) as device:
            size = int(run("dumpe2fs", "-h", device).stdout.split("Block size:")[1].split()[0])
            told = run("debugfs", "-R", "stat /file", device).stdout
        found = re.search(r"\(\d+-\d+\):(\d+)-\d+", told)
        assert found, told
        return int(found.group(1)) * size

    def test_a_snapshot_with_blocks_that_cant_be_read(self) -> None:
        self.make()
        other = self.make("other")
        convoy("umount", "db")
        offset = self.place_of_file("db-1") + 3 * MIB
        bad = self.place_of("db-1", offset)
        self.data.spoil(bad, 1)
        message = convoy_error("backup", "create", "db-1", "--dest", self.url)
        named = re.search(r"can't read (\d+) bytes of the volume at offset (\d+)", message)
        self.assertTrue(named, message)
        length, begin = int(named.group(1)), int(named.group(2))
        self.assertTrue(begin <= offset < begin + length, message)
        self.assertIn("Input/output error", message)
        # The others don't notice.
        self.assertEqual(sorted(convoy_json("list")), ["db", "other"])
        url = convoy("backup", "create", "other-1", "--dest", self.url)
        self.assertEqual(convoy_json("backup", "verify", url)["Damaged"], [])
        other.write_bytes(b"as ever")
        convoy("create", "new", "--size", "32M")
        self.data.mend()
        url = convoy("backup", "create", "db-1", "--dest", self.url)
        convoy("create", "copy", "--backup", url)
        with snapshot_device("db-1") as device:
            compare_devices(device, "/dev/mapper/copy")

    def test_sectors_that_go_bad_one_by_one_and_come_back_when_they_are_written(self) -> None:
        """As those of real disks do (dm-dust)."""
        self.make()
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "db-2")
        with snapshot_device("db-2") as device:
            content = device_digest(device)
        convoy("backup", "create", "db-1", "--dest", self.url)
        begin = self.place_of_file("db-1")
        bad = [self.place_of("db-1", begin + offset) for offset in (MIB, 3 * MIB, 5 * MIB)]
        self.data.set(f"0 {self.data.sectors} dust {self.data.below} 0 512")
        for sector in bad:
            run("dmsetup", "message", "disk-data", "0", "addbadblock", str(sector))
        run("dmsetup", "message", "disk-data", "0", "enable")
        other = self.destination.parent / "backups2"
        other.mkdir(exist_ok=True)
        self.addCleanup(shutil.rmtree, other)
        message = convoy_error("backup", "create", "db-1", "--dest", f"vfs://{other}/")
        self.assertRegex(message, r"can't read \d+ bytes of the volume at offset \d+")
        # What has not changed is not read.
        second = convoy("backup", "create", "db-2", "--dest", self.url)
        self.assertEqual(convoy_json("backup", "verify", second)["Damaged"], [])
        convoy("create", "again", "--backup", second)
        self.assertEqual(device_digest("/dev/mapper/again"), content)
        # What is written is good again.
        for sector in bad:
            run("dd", "if=/dev/zero", "of=/dev/mapper/disk-data", "oflag=direct", f"bs={SECTOR}", "count=1", f"seek={sector}")
        convoy("backup", "create", "db-1", "--dest", f"vfs://{other}/")
        self.data.mend()

    def test_a_data_device_that_cant_be_written(self) -> None:
        file = self.make()
        url = convoy("backup", "create", "db-1", "--dest", self.url)
        self.data.refuse_writes()
        with self.assertRaises(OSError), file.open("wb") as output:
            output.write(os.urandom(4 * MIB))
            os.fsync(output.fileno())
        for words in (("create", "copy", "--backup", url), ("create", "new", "--size", "32M")):
            self.assertRegex(convoy_error(*words), "one of its two devices could not be written|rror")
        self.assertEqual(list(convoy_json("list")), ["db"])
        # What is there can be read.
        again = convoy("backup", "create", "db-1", "--dest", self.url)
        self.assertEqual(convoy_json("backup", "verify", again)["Damaged"], [])
        self.repair()
        self.assertEqual(list(convoy_json("list")), ["db"])
        run("fsck.ext4", "-fy", "/dev/mapper/db", check=False)
        convoy("create", "copy", "--backup", url)
        with snapshot_device("db-1") as device:
            compare_devices(device, "/dev/mapper/copy")

    def test_a_metadata_device_that_cant_be_written(self) -> None:
        file = self.make()
        content = file.read_bytes()
        self.meta.refuse_writes()
        for words in (("create", "new", "--size", "32M"), ("snapshot", "create", "db", "--name", "db-2"), ("snapshot", "delete", "db-1")):
            self.assertRegex(convoy_error(*words), "one of its two devices could not be written|the pool has failed|rror")
        self.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)
        self.assertEqual(list(convoy_json("list")), ["db"])
        self.assertIn(convoy_json("info")["devicemapper"]["ThinpoolState"], ("read-only", "failed", "needs check"))
        # A file system whose pool can't be written to may be read.
        self.assertEqual(file.read_bytes(), content)
        self.repair()
        self.assertEqual(list(convoy_json("list")), ["db"])
        self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), ["db-1"])
        self.assertEqual(Path(convoy("mount", "db"), "file").read_bytes(), content)
        convoy("snapshot", "create", "db", "--name", "db-2")

    def test_metadata_that_cant_be_written_in_the_middle_of_a_step(self) -> None:
        """The kernel answers the message that ends a step with success, although its commit fails."""
        self.make()
        for point, words, left in (
            ("message to the pool", ("create", "new", "--size", "32M"), ["db-1"]),
            ("snapshot by the guard", ("snapshot", "create", "db", "--name", "new"), ["db-1"]),
            ("message to the pool", ("snapshot", "delete", "db-1"), []),  # the next start goes on with it
        ):
            client = self.stop_at(point, *words)
            self.meta.refuse_writes()
            os.kill(self.daemon.process.pid, signal.SIGCONT)
            told = client.communicate(timeout=60)
            self.assertNotEqual(client.returncode, 0, told)
            self.repair()
            self.assertEqual(list(convoy_json("list")), ["db"])
            self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), left)
            convoy("mount", "db")
        convoy("snapshot", "create", "db", "--name", "db-2")

    def stop_at(self, point: str, *words: str) -> subprocess.Popen:
        """A command, during which the daemon stands still at a crash point."""
        self.daemon.stop()
        self.daemon.program = BUILD / "bin/crashing_daemon"
        self.daemon.start()
        crash = Path("/run/convoy-crash")
        crash.write_text(f"stop {point}")
        self.addCleanup(crash.unlink, missing_ok=True)
        client = subprocess.Popen(["convoy", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until("the daemon stands", lambda: self.state_of(self.daemon.process.pid) == "T")
        crash.unlink()
        return client

    @staticmethod
    def state_of(process: int) -> str:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0]

    def test_a_guard_that_is_killed_while_it_has_a_volume_suspended(self) -> None:
        file = self.make()
        client = self.stop_at("catalog", "snapshot", "create", "db", "--name", "db-2")  # just before
        guard = int(run("pgrep", "-f", "convoy-suspend-guard").stdout)
        # It waits in the kernel until what is dirty is written, and is killed as it comes back.
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "disk-data")
        file.write_bytes(os.urandom(MIB))
        os.kill(self.daemon.process.pid, signal.SIGCONT)
        wait_until("the guard's wait", lambda: self.state_of(guard) == "D")
        os.kill(guard, signal.SIGKILL)
        run("dmsetup", "resume", "disk-data")
        self.assertIn("the suspend guard died", json.loads(client.communicate(timeout=60)[0])["Error"])
        self.assertNotIn("SUSPENDED", run("dmsetup", "info", "db").stdout)
        with file.open("wb") as output:
            output.write(os.urandom(MIB))
            os.fsync(output.fileno())
        convoy("snapshot", "create", "db", "--name", "db-2")

    def test_metadata_that_cant_be_read(self) -> None:
        self.make()
        convoy("umount", "db")
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool(self.disks)
        self.meta.spoil(8, self.meta.sectors - 8)  # all but the superblock
        with self.assertRaises(AssertionError) as refused:
            self.daemon.start()
        self.assertRegex(str(refused.exception), "rror")
        self.meta.mend()
        self.daemon.start()
        self.assertEqual(list(convoy_json("list")), ["db"])
        url = convoy("backup", "create", "db-1", "--dest", self.url)
        self.assertEqual(convoy_json("backup", "verify", url)["Damaged"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
