"""A pool that is full: of data, which a delete mends, or of metadata, which makes it read-only. Nobody hangs, and all that is
there stays readable."""
# budget: 800
# machine: --disk data=256M --disk meta=2M --disk larger=8M

import errno
import json
import os
import tempfile
import threading
import time
import unittest
from pathlib import Path

from support import (
    LOG,
    META,
    MIB,
    PoolTest,
    allow_kernel,
    backup_create,
    convoy,
    convoy_error,
    convoy_json,
    dm_devices,
    file_digests,
    run,
    shut_down_pool,
    wait_until,
)

LARGER = os.environ["DISK_LARGER"]
BLOCK = 64 << 10


def write_until_it_fails(path: Path) -> int:
    """The errno that ended it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, os.urandom(MIB))
            os.fsync(file)
    except OSError as error:
        assert error.errno
        return error.errno
    finally:
        os.close(file)


class FullOfData(PoolTest):
    def setUp(self) -> None:
        allow_kernel("reached low water mark for data device|switching pool to out-of-data-space|switching pool to write mode")
        allow_kernel("Buffer I/O error|buffer_io_error|EXT4-fs|JBD2|Aborting journal|I/O error")
        super().setUp()

    def test_writers_fail_at_once_and_a_delete_makes_room(self) -> None:
        convoy("create", "kept", "--size", "64M")
        kept = Path(convoy("mount", "kept"))
        (kept / "file").write_bytes(os.urandom(20 * MIB))
        os.sync()
        digests = file_digests(kept)
        convoy("create", "greedy", "--size", "1G")
        self.assertIn(write_until_it_fails(Path(convoy("mount", "greedy"), "file")), (errno.ENOSPC, errno.EIO))
        info = convoy_json("info")["devicemapper"]
        self.assertEqual(info["ThinpoolState"], "out of data space")
        self.assertEqual(info["ThinpoolSpace"], "too low for new volumes and snapshots: 100 percent of the data device are used")

        refusal = "the pool has no space for new volumes and snapshots: 100 percent of the data device are used; delete some"
        self.assertIn(refusal, convoy_error("create", "third", "--size", "64M"))
        self.assertIn(refusal, convoy_error("snapshot", "create", "kept"))
        # By the kernel's event: the daemon looks by itself only every half a minute.
        deadline = time.monotonic() + 10
        while "the pool gets full: " not in LOG.read_text():
            self.assertLess(time.monotonic(), deadline, "the log does not tell of it")
            time.sleep(0.1)
        self.assertEqual(sorted(convoy_json("list")), ["greedy", "kept"])
        self.assertEqual(sorted(dm_devices()), ["convoy-pool", "greedy", "kept"])
        self.assertEqual(file_digests(kept), digests)

        convoy("umount", "greedy")
        convoy("delete", "greedy")
        info = convoy_json("info")["devicemapper"]
        self.assertEqual((info["ThinpoolState"], info["ThinpoolSpace"]), ("read-write", "enough"))
        self.assertEqual(convoy("create", "third", "--size", "64M"), "third")
        self.assertEqual(file_digests(kept), digests)

    def test_a_restore_a_snapshot_and_a_backup_that_run_into_the_end(self) -> None:
        convoy("create", "db", "--size", "512M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(100 * MIB))
        os.sync()
        digests = file_digests(mountpoint)
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        (mountpoint / "more").write_bytes(os.urandom(90 * MIB))
        os.sync()
        # It is begun, for there is room still, and does not end well.
        self.assertRegex(convoy_error("create", "again", "--backup", url), "[Nn]o space|full")
        self.assertEqual(list(convoy_json("list")), ["db"])
        self.assertEqual(dm_devices(), ["convoy-pool", "db"])
        (mountpoint / "more").unlink()
        run("fstrim", mountpoint)
        # A snapshot that is there while all that is left is written.
        convoy("snapshot", "create", "db", "--name", "s2")
        self.assertIn(write_until_it_fails(mountpoint / "more"), (errno.ENOSPC, errno.EIO))
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolState"], "out of data space")
        second, kind, _, _ = backup_create("s2", self.url)
        self.assertEqual(kind, "incremental")
        self.assertEqual(convoy_json("backup", "verify", second)["Damaged"], [])
        self.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)
        run("umount", mountpoint)
        convoy("umount", "db", "--force")
        convoy("delete", "db")
        convoy("create", "again", "--backup", second)
        self.assertEqual(file_digests(convoy("mount", "again")), digests)


class Growing(PoolTest):
    """The pool's devices are files, which become larger."""

    def setUp(self) -> None:
        self.files = {}
        for name, size in (("data", 128 * MIB), ("meta", 4 * MIB)):
            file = Path("/tmp", name)
            file.write_bytes(b"")
            os.truncate(file, size)
            self.pool = self.pool | {name: run("losetup", "--find", "--show", file).stdout.strip()}
            self.addCleanup(file.unlink)
            self.addCleanup(run, "losetup", "--detach", self.pool[name])
        self.loops = ("/tmp/data", "/tmp/meta")
        super().setUp()

    def enlarge(self, name: str, size: int) -> None:
        os.truncate(f"/tmp/{name}", size)
        run("losetup", "--set-capacity", self.pool[name])

    def sizes(self) -> tuple[int, int]:
        info = convoy_json("info")["devicemapper"]
        return int(info["ThinpoolSize"]), int(info["ThinpoolMetadataSize"])

    def test_larger_devices_are_used_without_a_stop(self) -> None:
        self.assertIn("neither /dev/loop", convoy_error("pool", "grow"))
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(8 * MIB))
        self.enlarge("data", 256 * MIB)
        grown = json.loads(convoy("pool", "grow"))
        self.assertEqual(int(grown["ThinpoolSize"]), 256 * MIB)
        self.enlarge("meta", 8 * MIB)
        convoy("pool", "grow")
        self.assertEqual(self.sizes(), (256 * MIB, 8 * MIB))
        self.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)
        (mountpoint / "more").write_bytes(os.urandom(8 * MIB))
        os.sync()
        digests = file_digests(mountpoint)
        self.assertIn("neither /dev/loop", convoy_error("pool", "grow"))
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()
        self.assertEqual(self.sizes(), (256 * MIB, 8 * MIB))
        self.assertEqual(file_digests(mountpoint), digests)

    def test_one_that_has_become_smaller_is_refused(self) -> None:
        convoy("create", "db", "--size", "64M")
        self.enlarge("data", 64 * MIB)
        self.assertIn("has become smaller", convoy_error("pool", "grow"))
        self.enlarge("data", 128 * MIB)
        convoy("mount", "db")

    def test_writers_may_wait_for_more(self) -> None:
        allow_kernel("reached low water mark for data device|switching pool to out-of-data-space|switching pool to write mode")
        self.daemon.stop()
        self.daemon.start("--driver-opts", "dm.whenfull=queue")
        convoy("create", "db", "--size", "192M")
        file = Path(convoy("mount", "db"), "file")
        writer = threading.Thread(target=lambda: file.write_bytes(bytes(range(256)) * (640 << 10)) and os.sync())
        writer.start()
        wait_until("it waits", lambda: convoy_json("info")["devicemapper"]["ThinpoolState"] == "out of data space")
        self.enlarge("data", 256 * MIB)
        convoy("pool", "grow")
        writer.join(timeout=60)
        self.assertFalse(writer.is_alive())
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolState"], "read-write")
        self.assertEqual(file.stat().st_size, 160 * MIB)


class FullOfMetadata(PoolTest):
    pool = {"thinpoolblocksize": "128"}

    def test_it_becomes_read_only_and_says_so(self) -> None:
        allow_kernel("device-mapper")
        allow_kernel("Buffer I/O error|buffer_io_error|EXT4-fs|JBD2|Aborting journal|I/O error")
        convoy("create", "db", "--size", "128M")
        mountpoint = Path(convoy("mount", "db"))
        (mountpoint / "file").write_bytes(os.urandom(8 * MIB))
        os.sync()
        digests = file_digests(mountpoint)
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)

        self.fill_metadata()
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolState"], "read-only")
        before = convoy("list")
        for words in (
            ("create", "other", "--size", "64M"),
            ("create", "other", "--backup", url),
            ("delete", "greedy"),
            ("snapshot", "create", "db", "--name", "s2"),
            ("snapshot", "delete", "s1"),
        ):
            self.assertIn("the pool is read-only", convoy_error(*words), words)
        # What it holds can still be saved: all of it, and what changed since the last backup.
        self.assertEqual(backup_create("s1", self.url)[1:3], ("incremental", 0))
        elsewhere = f"vfs://{tempfile.mkdtemp()}/"
        _, kind, read, _ = backup_create("s1", elsewhere)
        self.assertEqual(kind, "full")
        self.assertGreater(read, 8 * MIB)
        self.assertEqual(convoy("list"), before, "something that was refused was half done")
        self.assertEqual(file_digests(mountpoint), digests)

        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(convoy("list"), before)
        self.assertEqual(file_digests(mountpoint), digests)
        convoy("umount", "db")
        self.assertEqual(file_digests(convoy("mount", "db")), digests)
        self.daemon.stop()

        # As docs/operations.md tells.
        shut_down_pool()
        run("thin_check", META)
        run("thin_repair", "-i", META, "-o", LARGER)
        self.daemon.start("--driver-opts", f"dm.metadatadev={LARGER}")
        self.assertEqual(int(convoy_json("info")["devicemapper"]["ThinpoolMetadataSize"]), 8 * MIB)
        self.assertEqual(file_digests(convoy_json("inspect", "db")["MountPoint"]), digests)
        convoy("backup", "create", "s1", "--dest", self.url)
        for other in self.others:
            run("dmsetup", "message", "convoy-pool", "0", f"delete {other}", check=False)
        convoy("delete", "greedy")
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()  # knows the new device now

    def fill_metadata(self) -> None:
        """After each snapshot, the next write to a leaf of the mapping tree copies the leaf. The daemon would refuse the last of
        them."""
        convoy("create", "greedy", "--size", "128M")
        origin = convoy_json("inspect", "greedy")["DriverInfo"]["DevID"]
        self.others: list[int] = []
        device = os.open("/dev/mapper/greedy", os.O_WRONLY | os.O_SYNC)
        try:
            for number in range(500):
                for block in range(number % 100, 128 * MIB // BLOCK, 100):
                    os.pwrite(device, bytes(BLOCK), block * BLOCK)
                run("dmsetup", "suspend", "greedy")
                message = ("dmsetup", "message", "convoy-pool", "0", f"create_snap {9000 + number} {origin}")
                if run(*message, check=False).returncode == 0:
                    self.others.append(9000 + number)
                run("dmsetup", "resume", "greedy")
            self.fail("the metadata device did not fill up")
        except OSError as error:
            self.assertIn(error.errno, (errno.EIO, errno.ENOSPC))
        finally:
            os.close(device)


if __name__ == "__main__":
    unittest.main(verbosity=2)
