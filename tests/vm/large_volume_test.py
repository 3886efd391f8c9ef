"""A volume of a TiB with much in it: what has not changed costs nothing. 4 GiB of data, in the long form 100 GiB.

The data take no disk: the pool's data device is one small disk, repeated. So each pool block that is mapped holds something, though not what was
written to it last; no file system is mounted, and the daemon is not started twice.
"""
# budget: 200
# long budget: 3000
# machine: --memory 2G --disk small=256M

import os
import time
import unittest

from support import MIB, PoolTest, backup_create, convoy, run, thin_check

DATA_GIB = 100 if os.environ.get("CONVOY_TEST_LONG") else 4
BLOCK = 2 * MIB
SPREAD = 10  # one of so many blocks of the volume is mapped


class LargeVolume(PoolTest):
    def setUp(self) -> None:
        small = os.environ["DISK_SMALL"]
        sectors = int(run("blockdev", "--getsz", small).stdout)
        lines = ((DATA_GIB * 5 // 4 + 2) << 30) // (sectors * 512)
        table = "".join(f"{line * sectors} {sectors} linear {small} 0\n" for line in range(lines))
        run("bash", "-c", f"printf '{table}' | dmsetup create repeated")
        self.addCleanup(run, "dmsetup", "remove", "repeated")
        self.pool = {"data": "/dev/mapper/repeated"}
        super().setUp()

    def tear_pool_down(self) -> None:
        """What the others check, the repeated disk would only confuse."""
        self.daemon.stop()
        run("dmsetup", "remove", "large")
        run("dmsetup", "remove", "convoy-pool")
        thin_check()

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self.destination.rglob("*") if path.is_file())

    def test_what_has_not_changed_costs_nothing(self) -> None:
        convoy("create", "large", "--size", "1T")
        device = os.open("/dev/mapper/large", os.O_WRONLY)
        for block in range(DATA_GIB * 512):
            os.pwrite(device, os.urandom(8), block * SPREAD * BLOCK)
        os.fsync(device)
        # The pool has zeroed what is mapped: only now it gets its content.
        with open(os.environ["DISK_SMALL"], "wb") as disk:
            for _ in range(256):
                disk.write(os.urandom(MIB))
            disk.flush()
            os.fsync(disk.fileno())
        convoy("snapshot", "create", "large", "--name", "s1")
        start = time.monotonic()
        _, kind, read, stored = backup_create("s1", self.url, timeout=1500)
        print(f"{kind} backup: {read / MIB:.0f} MiB read, {stored / MIB:.0f} MiB stored, {time.monotonic() - start:.0f} s")
        self.assertGreaterEqual(read, DATA_GIB * 1000 * MIB)

        convoy("snapshot", "create", "large", "--name", "s2")
        before = self.stored()
        start = time.monotonic()
        _, kind, read, _ = backup_create("s2", self.url)
        seconds, stored = time.monotonic() - start, self.stored() - before
        print(f"unchanged: {seconds:.2f} s, {stored} bytes stored")
        self.assertEqual((kind, read), ("incremental", 0))
        self.assertLess(stored, 64 << 10)

        # One page costs what one page costs.
        os.pwrite(device, os.urandom(4096), 7 * SPREAD * BLOCK + 8192)
        os.fsync(device)
        os.close(device)
        convoy("snapshot", "create", "large", "--name", "s3")
        _, kind, read, _ = backup_create("s3", self.url)
        self.assertEqual((kind, read), ("incremental", BLOCK))


if __name__ == "__main__":
    unittest.main(verbosity=2)
