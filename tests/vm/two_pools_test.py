"""Backups that go from a pool of one block size into a pool of another, and two daemons side by side."""
# budget: 800
# machine: --disk data2=4G --disk meta2=64M

import os
import unittest
from pathlib import Path

from support import (
    Daemon,
    PoolTest,
    backup_create,
    compare_devices,
    convoy,
    convoy_error,
    convoy_json,
    dm_devices,
    pool_options,
    remove_tree,
    run,
    thin_check,
    wipe,
)

DATA2, META2 = os.environ.get("DISK_DATA2", ""), os.environ.get("DISK_META2", "")
ROOT2, SOCKET2 = Path("/var/lib/convoy2"), Path("/run/convoy2.sock")
KIB64 = 64 << 10


class TwoPools(PoolTest):
    pool = {"thinpoolblocksize": "128"}

    def setUp(self) -> None:
        super().setUp()
        wipe(DATA2, META2)
        remove_tree(ROOT2)
        self.second = Daemon(
            pool=pool_options(DATA2, META2, thinpoolname="second-pool", thinpoolblocksize="32768"),
            root=ROOT2,
            socket=SOCKET2,
        )
        self.addCleanup(self.tear_second_down)

    def tear_second_down(self) -> None:
        convoy("delete", *[name for name in ("copy", "again") if name in dm_devices()], socket=SOCKET2)
        self.second.stop()
        run("dmsetup", "remove", "second-pool")
        thin_check(META2)

    def test_a_backup_restores_into_a_pool_of_other_blocks_and_back(self) -> None:
        size = 81 * KIB64  # of the second pool's blocks it is a third
        convoy("create", "db", "--size", str(size))
        Path(convoy("mount", "db"), "file").write_bytes(os.urandom(1 << 20))
        convoy("umount", "db")
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)

        convoy("create", "copy", "--backup", url, socket=SOCKET2)
        compare_devices("/dev/mapper/db", "/dev/mapper/copy")
        self.assertEqual(int(run("blockdev", "--getsize64", "/dev/mapper/copy").stdout), size)

        # The copy lives on: its backups continue the same line, and come back.
        mountpoint = Path(convoy("mount", "copy", socket=SOCKET2))
        (mountpoint / "more").write_bytes(os.urandom(100_000))
        convoy("umount", "copy", socket=SOCKET2)
        convoy("snapshot", "create", "copy", "--name", "s2", socket=SOCKET2)
        result = run("convoy", "-s", SOCKET2, "backup", "create", "s2", "--dest", self.url)
        second_url = result.stdout.strip()
        self.assertEqual(second_url.split("volume=")[1], url.split("volume=")[1])
        stored = result.stderr.split(", ")[1]
        self.assertIn("KiB stored", stored, "what the first backup holds was stored again")
        convoy("create", "back", "--backup", second_url)
        compare_devices("/dev/mapper/back", "/dev/mapper/copy")

    def test_a_volume_that_was_restored_builds_on_the_backup_it_came_from(self) -> None:
        convoy("create", "db", "--size", str(81 * KIB64))
        mountpoint = Path(convoy("mount", "db"))
        urls = []
        (mountpoint / "file").write_bytes(bytes(1 << 20))
        for name in ("s1", "s2"):
            with (mountpoint / "file").open("r+b") as file:  # in its place
                file.write(os.urandom(1 << 20))
            convoy("snapshot", "create", "db", "--name", name)
            urls.append(backup_create(name, self.url)[0])
        # Not the newest, which holds less of what it has.
        convoy("create", "copy", "--backup", urls[0], socket=SOCKET2)
        run("dd", "if=/dev/urandom", "of=/dev/mapper/copy", "bs=64K", "seek=60", "count=2", "conv=fsync", "status=none")
        convoy("snapshot", "create", "copy", "--name", "s3", socket=SOCKET2)
        result = run("convoy", "-s", SOCKET2, "backup", "create", "s3", "--dest", self.url)
        self.assertRegex(result.stderr, r"full backup: .*, 1[2-9]\d\.\d KiB stored")  # the two blocks alone
        convoy("create", "again", "--backup", result.stdout.strip(), socket=SOCKET2)
        compare_devices("/dev/mapper/again", "/dev/mapper/copy")

    def test_names_that_the_other_daemon_has_are_refused(self) -> None:
        convoy("create", "copy", "--size", "16M", socket=SOCKET2)
        self.assertIn("a dm device named 'copy' that is not ours exists", convoy_error("create", "copy", "--size", "16M"))
        self.assertEqual(convoy("list"), "{}")
        # The first daemon's restart leaves the second's devices alone.
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(dm_devices(), ["convoy-pool", "copy", "second-pool"])
        self.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolBlockSize"], str(KIB64))


if __name__ == "__main__":
    unittest.main(verbosity=2)
