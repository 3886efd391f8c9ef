"""A pool that is full: of data, which a delete mends, or of metadata, which makes it read-only. Nobody hangs, and all that is
there stays readable."""
# budget: 800
# machine: --disk data=256M --disk meta=2M --disk larger=8M

import errno
import os
import tempfile
import unittest
from pathlib import Path

from support import (
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
    def test_writers_fail_at_once_and_a_delete_makes_room(self) -> None:
        allow_kernel("reached low water mark for data device|switching pool to out-of-data-space|switching pool to write mode")
        allow_kernel("Buffer I/O error|buffer_io_error|EXT4-fs|JBD2|Aborting journal|I/O error")
        convoy("create", "kept", "--size", "64M")
        kept = Path(convoy("mount", "kept"))
        (kept / "file").write_bytes(os.urandom(20 * MIB))
        os.sync()
        digests = file_digests(kept)
        convoy("create", "greedy", "--size", "1G")
        self.assertIn(write_until_it_fails(Path(convoy("mount", "greedy"), "file")), (errno.ENOSPC, errno.EIO))
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolState"], "out of data space")

        self.assertIn("no space", convoy_error("create", "third", "--size", "64M").lower())
        self.assertEqual(sorted(convoy_json("list")), ["greedy", "kept"])
        self.assertEqual(sorted(dm_devices()), ["convoy-pool", "greedy", "kept"])
        self.assertEqual(file_digests(kept), digests)

        convoy("umount", "greedy")
        convoy("delete", "greedy")
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolState"], "read-write")
        self.assertEqual(convoy("create", "third", "--size", "64M"), "third")
        self.assertEqual(file_digests(kept), digests)


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
        convoy("delete", "greedy")
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()  # knows the new device now

    def fill_metadata(self) -> None:
        """After each snapshot, the next write to a leaf of the mapping tree copies the leaf."""
        convoy("create", "greedy", "--size", "128M")
        device = os.open("/dev/mapper/greedy", os.O_WRONLY | os.O_SYNC)
        try:
            for number in range(500):
                for block in range(number % 100, 128 * MIB // BLOCK, 100):
                    os.pwrite(device, bytes(BLOCK), block * BLOCK)
                run("convoy", "snapshot", "create", "greedy", "--name", f"g{number}", check=False)
            self.fail("the metadata device did not fill up")
        except OSError as error:
            self.assertIn(error.errno, (errno.EIO, errno.ENOSPC))
        finally:
            os.close(device)


if __name__ == "__main__":
    unittest.main(verbosity=2)
