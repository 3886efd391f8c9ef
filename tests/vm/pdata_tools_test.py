"""convoy-pdata_tools on a pool that is in use: what they read of its metadata snapshot, Debian's read, too."""
# budget: 300

import os
import unittest

from support import META, PoolTest, convoy, convoy_json, run

BLOCK = 64 << 10


class MetadataSnapshot(PoolTest):
    pool = {"thinpoolblocksize": "128"}

    def same(self, tool: str, *words: str) -> str:
        """Standard output of Debian's tool and of ours, which agree."""
        expected, found = run(tool, *words, META), run("convoy-pdata_tools", tool, *words, META)
        self.assertEqual(found.stdout, expected.stdout, (tool, words))
        self.assertEqual(found.stderr, "")
        return found.stdout

    def write(self, *blocks: int) -> None:
        with open("/dev/mapper/db", "r+b") as device:
            for block in blocks:
                device.seek(block * BLOCK)
                device.write(os.urandom(BLOCK))
            device.flush()
            os.fsync(device.fileno())

    def test_is_read_by_all_tools_while_the_pool_changes(self) -> None:
        convoy("create", "db", "--size", "512M")
        self.write(*range(0, 600), *range(1000, 4000, 7))
        convoy("snapshot", "create", "db", "--name", "s1")
        self.write(*range(0, 8000, 31))
        volume = convoy_json("inspect", "db")["DriverInfo"]["DevID"]
        pair = ("--snap1", convoy_json("snapshot", "inspect", "s1")["DriverInfo"]["DevID"], "--snap2", volume)
        run("dmsetup", "message", "convoy-pool", "0", "reserve_metadata_snap")
        self.addCleanup(run, "dmsetup", "message", "convoy-pool", "0", "release_metadata_snap")
        held = run("dmsetup", "status", "convoy-pool").stdout.split()[6]
        # All that the live metadata have from now on is seen by none.
        self.write(*range(600, 5000, 3))
        convoy("snapshot", "create", "db", "--name", "s2")

        for option in ("-m", f"-m{held}", f"--metadata-snap={held}"):
            self.assertEqual(self.same("thin_dump", option).count("<device "), 3)  # one is the label
            delta = self.same("thin_delta", option, *pair)
            changed = run("convoy-pdata_tools", "thin_delta", "--changed-only", option, *pair, META).stdout
            self.assertEqual([line for line in delta.splitlines() if "<same" not in line], changed.splitlines())
        self.same("thin_dump", "-m", "--dev-id", volume)
        self.same("thin_dump", "-m", "-f", "human_readable")
        self.assertEqual(len(self.same("thin_ls", "-m", "--no-headers").splitlines()), 3)
        run("convoy-pdata_tools", "thin_check", "-m", META)


if __name__ == "__main__":
    unittest.main(verbosity=2)
