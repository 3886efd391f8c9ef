"""Two daemons that write to one lineage of backups in one destination: either may stand still for an hour, at any moment, and go
on. The second one's clock is an hour ahead."""
# budget: 800
# machine: --memory 2G --disk store=4G --disk data2=4G --disk meta2=64M

import contextlib
import datetime
import json
import os
import signal
import subprocess
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

from support import (
    MIB, Daemon, PoolTest, convoy, convoy_json, device_digest, dm_devices, pool_options, remove_tree, run, snapshot_device,
    thin_check, wait_until, wipe,
)

DATA2, META2 = os.environ.get("DISK_DATA2", ""), os.environ.get("DISK_META2", "")
ROOT2, SOCKET2 = Path("/var/lib/convoy2"), Path("/run/convoy2.sock")
HOUR = 3600
# What a program is told of the time of day alone: neither durations nor the times of files.
AN_HOUR_AHEAD = {
    "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "FAKETIME": "+1h",
    "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
}


def pass_an_hour() -> None:
    """For everybody's clocks but those that tell durations. So objects that are put from now on are an hour newer."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + HOUR)


class TwoWriters(PoolTest):
    """The first daemon has the volume db, and the second copy, which was restored from a backup of db."""

    def setUp(self) -> None:
        super().setUp()
        # On a disk, whose every sync takes a moment, in which the other side may come up.
        self.destination = Path("/mnt/store")
        self.destination.mkdir(exist_ok=True)
        run("mkfs.ext4", "-q", "-F", os.environ["DISK_STORE"])
        run("mount", os.environ["DISK_STORE"], self.destination)
        self.addCleanup(run, "umount", self.destination)
        self.url = f"vfs://{self.destination}/"
        wipe(DATA2, META2)
        remove_tree(ROOT2)
        self.second = Daemon(
            pool=pool_options(DATA2, META2, thinpoolname="second-pool"), root=ROOT2, socket=SOCKET2, environment=AN_HOUR_AHEAD
        )
        self.addCleanup(self.tear_second_down)
        self.backups_of_second: list[str] = []
        self.snapshots = 0
        convoy("create", "db", "--size", "256M")
        self.mountpoint = Path(convoy("mount", "db"))
        (self.mountpoint / "file").write_bytes(os.urandom(64 * MIB))
        url = convoy("backup", "create", self.snapshot_of_first(), "--dest", self.url)
        convoy("create", "copy", "--backup", url, socket=SOCKET2)
        self.mountpoint2 = Path(convoy("mount", "copy", socket=SOCKET2))

    def tear_second_down(self) -> None:
        if "copy" in dm_devices():
            convoy("umount", "copy", socket=SOCKET2)
            convoy("delete", "copy", socket=SOCKET2)
        self.second.stop()
        run("dmsetup", "remove", "second-pool")
        thin_check(META2)

    def change(self, mountpoint: Path, begin: int, length: int) -> None:
        with (mountpoint / "file").open("r+b") as file:
            file.seek(begin)
            file.write(os.urandom(length))
            os.fsync(file.fileno())

    def snapshot_of_first(self) -> str:
        self.snapshots += 1
        snapshot = f"s{self.snapshots}"
        convoy("snapshot", "create", "db", "--name", snapshot)
        return snapshot

    def back_up_second(self) -> None:
        self.snapshots += 1
        snapshot = f"c{self.snapshots}"
        self.change(self.mountpoint2, self.snapshots % 16 * 4 * MIB, 3 * MIB)
        convoy("snapshot", "create", "copy", "--name", snapshot, socket=SOCKET2)
        self.backups_of_second.append(convoy("backup", "create", snapshot, "--dest", self.url, socket=SOCKET2))

    def delete_all_but(self, kept: list[str]) -> None:
        for url in json.loads(convoy("backup", "list", self.url, socket=SOCKET2)):
            if url not in kept:
                convoy("backup", "delete", url, socket=SOCKET2)
        convoy("backup", "gc", self.url, socket=SOCKET2)

    @contextlib.contextmanager
    def stopped(self, daemon: Daemon) -> Iterator[None]:
        assert daemon.process
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            daemon.process.send_signal(signal.SIGCONT)

    def check_backups(self) -> None:
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])

    def check_restore(self, url: str, snapshot: str) -> None:
        convoy("create", "again", "--backup", url)
        with snapshot_device(snapshot) as device:
            self.assertEqual(device_digest("/dev/mapper/again"), device_digest(device))
        convoy("delete", "again")

    def packs(self) -> int:
        return sum(name.endswith(".data") for _, _, names in os.walk(self.destination) for name in names)

    def leases(self) -> int:
        leases = [names for path, _, names in os.walk(self.destination) if path.endswith("/leases")]
        return sum(name.endswith(".json") for names in leases for name in names)

    def back_up_with_a_pause(self, moment: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
        """A backup by the first daemon that stands still from that moment on, until the other one has done its part."""
        self.change(self.mountpoint, 0, 48 * MIB)
        snapshot = self.snapshot_of_first()
        command = ["convoy", "backup", "create", snapshot, "--dest", self.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
            wait_until("the moment to stop has come", moment)
            with self.stopped(self.daemon):
                self.assertIsNone(writer.poll(), "it ended before it could be stopped")
                meanwhile()
            told, error = writer.communicate(timeout=60)
        if writer.returncode == 0:
            self.outcomes.append("completed")
        else:
            self.assertIn("lost its lease", error)
            self.outcomes.append("lost its lease")
            self.check_backups()
            told = convoy("backup", "create", snapshot, "--dest", self.url)
        self.check_backups()
        self.check_restore(told.strip(), snapshot)

    def test_their_clocks_are_an_hour_apart(self) -> None:
        self.back_up_second()
        url = convoy("backup", "create", self.snapshot_of_first(), "--dest", self.url)
        backups = convoy_json("backup", "list", self.url)
        first, second = (
            datetime.datetime.strptime(backups[key]["CreatedTime"], "%a %b %d %H:%M:%S %z %Y")
            for key in (url, self.backups_of_second[-1])
        )
        self.assertAlmostEqual((second - first).total_seconds(), HOUR, delta=300)

    def test_a_backup_that_stands_still_while_all_it_builds_on_is_deleted(self) -> None:
        self.outcomes: list[str] = []

        def hour_of_the_second() -> None:
            pass_an_hour()
            self.back_up_second()
            self.delete_all_but(self.backups_of_second[-1:])

        for packs in (0, 1, 1):
            before = self.packs()
            self.back_up_with_a_pause(
                lambda: self.leases() > 0 and self.packs() >= before + packs, hour_of_the_second
            )
        # The first may not have looked for what it builds on when it was stopped: then it takes another.
        self.assertEqual(self.outcomes[1:], ["lost its lease"] * 2)

    def test_a_backup_that_stands_still_for_a_moment(self) -> None:
        self.outcomes = []

        def moment_of_the_second() -> None:
            self.back_up_second()
            self.delete_all_but(self.backups_of_second[-1:])

        for _ in range(2):
            before = self.packs()
            self.back_up_with_a_pause(lambda: self.packs() > before, moment_of_the_second)
        self.assertEqual(self.outcomes, ["completed"] * 2)

    def plans(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            (lineage,) = os.listdir(self.destination / "convoy/volumes")
            return len(os.listdir(self.destination / "convoy/volumes" / lineage / "gc"))
        return 0

    def test_a_deletion_that_stands_still(self) -> None:
        interrupted = 0
        for step in range(16):
            self.back_up_second()
            self.back_up_second()
            url = self.backups_of_second[-2]
            deletion = threading.Thread(target=convoy, args=("backup", "delete", url), kwargs={"socket": SOCKET2})
            plans = self.plans()
            deletion.start()
            # When its plan is there, and then a little later each time.
            while self.plans() == plans and deletion.is_alive():
                pass
            time.sleep(0.0005 * step)
            with self.stopped(self.second):
                interrupted += self.plans() > plans
                # Meanwhile the first daemon builds on what is left, and tidies up.
                self.change(self.mountpoint, 0, MIB)
                snapshot = self.snapshot_of_first()
                kept = convoy("backup", "create", snapshot, "--dest", self.url)
                if step % 2 == 0:
                    pass_an_hour()
                convoy("backup", "gc", self.url)
                self.check_backups()
            deletion.join(timeout=60)
            self.assertFalse(deletion.is_alive(), "the deletion never ends")
            self.assertNotIn(url, convoy_json("backup", "list", self.url))
            self.check_backups()
            self.check_restore(kept, snapshot)
        print(f"{interrupted} deletions were interrupted")
        self.assertGreater(interrupted, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
