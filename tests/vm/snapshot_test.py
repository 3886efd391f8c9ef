"""Snapshots of volumes that are written to: consistent after a crash, quick, without copies, and never at the writer's cost."""
# budget: 800

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from support import UNDONE_CREATE, PoolTest, allow_kernel, convoy, convoy_error, convoy_json, run, wait_until

WRITER = """
import os, sys, time
gap, last = 0.0, time.monotonic()
with open(sys.argv[1] + "/beat", "w") as file:
    while not os.path.exists(sys.argv[2]):
        file.write("x" * 512)
        file.flush()
        os.fsync(file.fileno())
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        open(sys.argv[2] + ".gap", "w").write(str(gap))
        time.sleep(0.005)
"""


class Snapshots(PoolTest):
    def start_writer(self, mountpoint: str) -> subprocess.Popen:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, mountpoint, "/tmp/stop-writer"])
        self.addCleanup(writer.wait)
        self.addCleanup(writer.kill)
        return writer

    def longest_gap(self, writer: subprocess.Popen) -> float:
        Path("/tmp/stop-writer").touch()
        self.assertEqual(writer.wait(timeout=30), 0)
        Path("/tmp/stop-writer").unlink()
        return float(Path("/tmp/stop-writer.gap").read_text())

    def test_a_database_in_a_snapshot_is_one_that_lost_power(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = convoy("mount", "db")
        stop = threading.Event()
        committed = [0]

        def write() -> None:
            database = sqlite3.connect(f"{mountpoint}/data.db", isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE entry (n INTEGER PRIMARY KEY, filler BLOB)")
            while not stop.is_set():
                database.execute("INSERT INTO entry VALUES (?, ?)", (committed[0] + 1, os.urandom(3000)))
                committed[0] += 1
            database.close()

        thread = threading.Thread(target=write)
        thread.start()
        bounds = []
        for i in range(4):
            time.sleep(0.3)
            before = committed[0]
            convoy("snapshot", "create", "db", "--name", f"s{i}")
            bounds.append((before, committed[0] + 1))
        stop.set()
        thread.join()
        convoy("umount", "db")

        for i, (least, most) in enumerate(bounds):
            url = convoy("backup", "create", f"s{i}", "--dest", self.url)
            convoy("create", f"copy{i}", "--backup", url)
            copy = sqlite3.connect(convoy("mount", f"copy{i}") + "/data.db")
            self.assertEqual(copy.execute("PRAGMA integrity_check").fetchone(), ("ok",))
            count, last = copy.execute("SELECT count(*), max(n) FROM entry").fetchone()
            copy.close()
            self.assertEqual(count, last or 0)
            self.assertTrue(least <= count <= most, f"{least} <= {count} <= {most}")

    def test_a_snapshot_copies_nothing(self) -> None:
        convoy("create", "db", "--size", "64M")
        Path(convoy("mount", "db"), "file").write_bytes(os.urandom(20 << 20))
        os.sync()
        used = int(convoy_json("info")["devicemapper"]["ThinpoolUsed"])
        convoy("snapshot", "create", "db", "--name", "mounted")
        # ext4, when it is thawed, writes its superblock: that is its first write after the snapshot.
        self.assertLessEqual(int(convoy_json("info")["devicemapper"]["ThinpoolUsed"]), used + (2 << 20))
        convoy("umount", "db")
        used = int(convoy_json("info")["devicemapper"]["ThinpoolUsed"])
        convoy("snapshot", "create", "db", "--name", "unmounted")
        self.assertEqual(int(convoy_json("info")["devicemapper"]["ThinpoolUsed"]), used)

    def test_a_writer_goes_on_when_the_daemon_is_killed_at_any_point(self) -> None:
        convoy("create", "db", "--size", "64M")
        writer = self.start_writer(convoy("mount", "db"))
        begin = time.monotonic()
        convoy("snapshot", "create", "db", "--name", "undisturbed")
        takes = time.monotonic() - begin
        dice = random.Random(1)
        for i in range(20):
            command = subprocess.Popen(
                ["convoy", "--socket", "/run/convoy/convoy.sock", "snapshot", "create", "db", "--name", f"s{i}"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(dice.uniform(0.1, 1.2) * takes)
            self.daemon.kill()
            command.wait()
            beat = Path("/tmp/stop-writer.gap").stat().st_mtime_ns
            # The daemon is dead all the while.
            wait_until(f"the writer's next write after kill {i}", lambda beat=beat: Path("/tmp/stop-writer.gap").stat().st_mtime_ns > beat)
            self.daemon.start()
        self.assertLess(self.longest_gap(writer), 1.0)
        made = set(convoy_json("inspect", "db")["Snapshots"]) - {"undisturbed"}
        self.assertTrue(made, "no snapshot was ever finished")
        self.assertLess(len(made), 20, "no kill ever came in time")

    def test_a_guard_that_dies_is_replaced(self) -> None:
        convoy("create", "db", "--size", "64M")
        writer = self.start_writer(convoy("mount", "db"))
        for i in range(3):
            convoy("snapshot", "create", "db", "--name", f"s{i}")
            run("pkill", "-KILL", "-f", "convoy-suspend-guard")
        convoy("snapshot", "create", "db", "--name", "last")
        # One that dies with the request in hand: the daemon resumes in its place.
        allow_kernel(UNDONE_CREATE)
        guard = int(run("pgrep", "-f", "convoy-suspend-guard").stdout)
        os.kill(guard, signal.SIGSTOP)
        killer = threading.Timer(3, os.kill, (guard, signal.SIGKILL))
        killer.start()
        self.assertIn("the suspend guard died", convoy_error("snapshot", "create", "db", "--name", "x"))
        killer.join()
        self.assertNotIn("SUSPENDED", run("dmsetup", "info", "db").stdout)
        convoy("snapshot", "create", "db", "--name", "x")
        self.assertLess(self.longest_gap(writer), 1.0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
