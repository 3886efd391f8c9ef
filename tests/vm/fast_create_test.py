"""A volume is there within a moment whatever its size, takes little of the pool, and takes no more when it is only mounted."""
# budget: 600
# long budget: 1200
# machine: --memory 2G

import os
import time
import unittest

from support import GIB, MIB, PoolTest, convoy, convoy_json, run

# The kernel's lazy initialisation, which must find nothing to do, would begin soon after the mount.
IDLE_SECONDS = 600 if os.environ.get("CONVOY_TEST_LONG") else 20
SIZES = (GIB, 100 * GIB, 1024 * GIB)
# With blocks of 2 MiB. xfs fills its log of 64 MiB, and each of its allocation groups, 32 in 1 TiB, begins in a block of its own.
MOST = {"ext4": 56 * MIB, "xfs": 136 * MIB}


class FastCreate(PoolTest):
    def used(self, volume: str) -> int:
        return int(convoy_json("inspect", volume)["DriverInfo"]["Used"])

    def test_beside_plain_mkfs(self) -> None:
        volumes = []
        for filesystem in ("ext4", "xfs"):
            for size in SIZES:
                name = f"{filesystem}-{size // GIB}G"
                begin = time.monotonic()
                convoy("create", name, "--fs", filesystem, "--size", str(size))
                created = time.monotonic() - begin
                at_create = self.used(name)
                self.assertLessEqual(at_create, MOST[filesystem])
                volumes.append((name, filesystem, created, at_create, *self.plain_mkfs(filesystem, size)))
        for name, *_ in volumes:
            convoy("mount", name)
        time.sleep(IDLE_SECONDS)
        for name, filesystem, created, at_create, plain, plain_used in volumes:
            later = self.used(name)
            print(
                f"{name:11} create {created:5.2f} s, plain mkfs {plain:5.2f} s; of the pool {at_create // MIB:3} MiB, "
                f"plain {plain_used // MIB:4} MiB; {IDLE_SECONDS} s after the mount {later // MIB:3} MiB"
            )
            # The mount itself writes: a superblock, a log.
            self.assertLessEqual(later, at_create + 6 * MIB, name)
            # What else a create does is a few synced writes and a few programs' starts.
            self.assertLess(created, plain + 5, name)

    def plain_mkfs(self, filesystem: str, size: int) -> tuple[float, int]:
        """How long mkfs takes as everybody runs it, and what it takes of the pool."""
        convoy("create", "plain", "--size", str(size))
        device = "/dev/mapper/plain"
        run("blkdiscard", device)
        begin = time.monotonic()
        run(f"mkfs.{filesystem}", "-q", "-F" if filesystem == "ext4" else "-f", device)
        seconds = time.monotonic() - begin
        used = self.used("plain")
        convoy("delete", "plain")
        return seconds, used



if __name__ == "__main__":
    unittest.main(verbosity=2)
