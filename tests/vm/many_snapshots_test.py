"""Volumes with very many snapshots: what a list, an incremental backup and a start of the daemon take then."""
# budget: 600
# long budget: 7000
# machine: --memory 3G --disk meta=2G

import json
import os
import signal
import time
import unittest
from collections.abc import Callable

from support import META, MIB, DockerCall, PoolTest, backup_create, convoy, convoy_json, run, shut_down_pool

# 100 volumes of 1000 snapshots are 100,100 thin devices and the label.
VOLUMES, SNAPSHOTS = (100, 1000) if os.environ.get("CONVOY_TEST_LONG") else (4, 50)


def timed(what: str, action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    seconds = time.monotonic() - begin
    print(f"{what}: {seconds:.2f} s", flush=True)
    return seconds


class ManySnapshots(PoolTest):
    pool = {"thinpoolblocksize": "128"}

    def setUp(self) -> None:
        super().setUp()
        self.connection = DockerCall()
        self.addCleanup(lambda: self.connection.close())

    def snapshot(self, volume: str, name: str) -> None:
        """As the command line does, without the start of a program for each."""
        self.connection.request("POST", "/v1/snapshot", json.dumps({"Volume": volume, "Name": name}))
        response = self.connection.getresponse()
        answer = response.read()
        self.assertEqual(response.status, 200, answer)

    def write(self, volume: str, block: int) -> None:
        device = os.open(f"/dev/mapper/{volume}", os.O_WRONLY | os.O_DSYNC)
        os.pwrite(device, os.urandom(4096), block << 16)
        os.close(device)

    def make(self) -> None:
        for volume in range(VOLUMES):
            convoy("create", f"v{volume}", "--size", str(64 * MIB))
            for number in range(SNAPSHOTS):
                if number % 10 == 0:
                    self.write(f"v{volume}", number % 1000)
                self.snapshot(f"v{volume}", f"v{volume}-{number}")

    def test_figures(self) -> None:
        print(f"\n{VOLUMES} volumes of {SNAPSHOTS} snapshots")
        timed("making them", self.make)
        last = f"v{VOLUMES - 1}"
        newest = f"{last}-{SNAPSHOTS - 1}"
        timed("list", lambda: self.assertEqual(len(convoy_json("list")), VOLUMES))
        timed("inspect of a volume", lambda: self.assertEqual(len(convoy_json("inspect", last)["Snapshots"]), SNAPSHOTS))
        timed("first backup", lambda: backup_create(f"{last}-{SNAPSHOTS - 2}", self.url))
        self.write(last, 7)
        self.snapshot(last, "changed")

        def incremental() -> None:
            _, kind, read, _ = backup_create("changed", self.url)
            self.assertEqual(kind, "incremental")
            self.assertLessEqual(read, 2 * 65536)

        timed("incremental backup", incremental)
        timed("snapshot", lambda: self.snapshot(last, "one-more"))
        timed("deletion of a snapshot", lambda: convoy("snapshot", "delete", newest))
        self.connection.close()
        timed("stop", self.daemon.stop)
        timed("start, with the pool active", self.daemon.start)
        self.daemon.stop(signal.SIGKILL)
        shut_down_pool()
        timed("start, as after a reboot", self.daemon.start)
        # Without the end, which takes each snapshot away: the pool's metadata are checked instead.
        if VOLUMES * SNAPSHOTS > 1000:
            self.daemon.stop()
            shut_down_pool()
            tool = "convoy-pdata_tools"
            timed("thin_ls", lambda: run(tool, "thin_ls", META, timeout=600))
            timed("Debian's thin_ls", lambda: run("thin_ls", META, timeout=600))
            timed("thin_check", lambda: run(tool, "thin_check", META, timeout=600))
            timed("Debian's thin_check", lambda: run("thin_check", META, timeout=600))
            self.daemon.process = None


if __name__ == "__main__":
    unittest.main(verbosity=2)
