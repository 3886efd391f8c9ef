"""Long jobs: they keep nobody waiting, show their progress, can be interrupted, and leave nothing half made."""
# budget: 800
# machine: --memory 3G

import json
import os
import pty
import re
import signal
import subprocess
import time
import unittest
from pathlib import Path

from support import (
    MIB, SOCKET, PoolTest, api, backup_create, convoy, convoy_error, convoy_json, device_digest, dm_devices, docker,
    run, snapshot_device,
)

COMMAND = ["convoy", "--socket", str(SOCKET)]


class Jobs(PoolTest):
    """A volume with so much in it that its backup takes seconds."""

    def setUp(self) -> None:
        super().setUp()
        convoy("create", "big", "--size", "1G")
        self.fill("file", 60)
        convoy("snapshot", "create", "big", "--name", "s1")

    def fill(self, name: str, pieces: int) -> None:
        mountpoint = Path(convoy("mount", "big"))
        noise = os.urandom(4 * MIB)
        with (mountpoint / name).open("wb") as file:
            for i in range(pieces):
                file.write(noise[i:] + noise[:i])  # not the same chunk twice
        convoy("umount", "big")

    def start(self, *words: str) -> subprocess.Popen:
        process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def start_backup(self, snapshot: str = "s1") -> subprocess.Popen:
        """Returns when chunks are being stored."""
        process = self.start("backup", "create", snapshot, "--dest", self.url)
        deadline = time.monotonic() + 20
        while not list(self.destination.rglob("*.data")):
            self.assertIsNone(process.poll(), "it ended before it could be watched")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return process

    def wait_until_only_chunks_are_left(self) -> None:
        """No backup, no lease, no work device; what was stored stays for the next backup, with a mark to find it by."""
        deadline = time.monotonic() + 20
        left: list = [None]
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            # Unlike rglob, walk does not mind directories that go meanwhile.
            left = [name for _, _, names in os.walk(self.destination) for name in names]
            left = [name for name in left if name != "store.json" and not name.endswith((".data", ".tree", ".revoked"))]
            left += [name for name in dm_devices() if re.match("convoy-pool-", name)]
        self.assertEqual(left, [])
        self.assertEqual(convoy("backup", "list", self.url), "{}")

    def check_that_others_do_not_wait(self, job: subprocess.Popen) -> None:
        """All the calls together take less time than the job."""
        begin = time.monotonic()
        for call in (
            lambda: api("GET", "/v1/volumes"),
            lambda: api("POST", "/v1/volume/mount", Name="other"),
            lambda: api("POST", "/v1/snapshot", Volume="other"),
            lambda: api("POST", "/v1/snapshot", Volume="big"),  # not even on the same volume
            lambda: docker("VolumeDriver.List"),
            lambda: docker("VolumeDriver.Mount", Name="other", ID="container"),
            lambda: docker("VolumeDriver.Unmount", Name="other", ID="container"),
            lambda: api("POST", "/v1/volume/umount", Name="other"),
        ):
            start = time.monotonic()
            call()
            print(f"{time.monotonic() - start:.2f} s", end=" ")
            self.assertIsNone(job.poll(), "the job ended too early to show anything")
        print(f"beside a job: {time.monotonic() - begin:.2f} s")

    def test_others_do_not_wait_for_a_backup_or_a_restore(self) -> None:
        convoy("create", "other", "--size", "64M")
        self.fill("more", 160)
        convoy("snapshot", "create", "big", "--name", "long")
        backup = self.start_backup("long")
        self.check_that_others_do_not_wait(backup)
        self.assertRegex(convoy_error("snapshot", "delete", "long"), r"is being read by job \d+ \(backup of long\)")
        self.assertIn("is being read", convoy_error("delete", "big"))
        output, _ = backup.communicate(timeout=120)
        self.assertEqual(backup.returncode, 0)
        convoy("snapshot", "delete", "long")
        url = output.strip()
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [url])

        restore = self.start("create", "copy", "--backup", url)
        while "copy" not in dm_devices():
            time.sleep(0.01)
        self.check_that_others_do_not_wait(restore)
        self.assertEqual(restore.wait(timeout=120), 0)

    def test_without_the_earlier_snapshot_all_is_read_and_little_stored(self) -> None:
        _, kind, read, _ = backup_create("s1", self.url)
        self.assertEqual(kind, "full")
        convoy("snapshot", "delete", "s1")
        self.fill("little", 1)
        convoy("snapshot", "create", "big", "--name", "s2")
        _, kind, read_again, stored = backup_create("s2", self.url)
        self.assertEqual(kind, "full")
        self.assertGreaterEqual(read_again, read)
        self.assertLess(stored, 6 * MIB)

    def arrived(self) -> int:
        """Bytes of chunks in the destination."""
        return sum(pack.stat().st_size for pack in self.destination.rglob("*.data"))

    def check_that_what_arrived_is_not_stored_again(self) -> None:
        arrived = self.arrived()
        self.assertLess(0, arrived)
        url, _, read, stored = backup_create("s1", self.url)
        self.assertLess(stored, read - arrived * 9 / 10)
        convoy("create", "again", "--backup", url)
        with snapshot_device("s1") as device:
            self.assertEqual(device_digest(convoy_json("inspect", "again")["DriverInfo"]["Device"]), device_digest(device))
        convoy("delete", "again")

    def test_ctrl_c_of_a_backup_leaves_what_the_next_one_can_use(self) -> None:
        backup = self.start_backup()
        backup.send_signal(signal.SIGINT)
        output, errors = backup.communicate(timeout=30)
        self.assertEqual(backup.returncode, 130)
        self.assertIn("cancelled", json.loads(output)["Error"])
        self.assertIn("cancelled", errors)
        self.wait_until_only_chunks_are_left()
        self.check_that_what_arrived_is_not_stored_again()
        convoy("snapshot", "delete", "s1")

    def test_a_client_that_is_killed_cancels_its_job(self) -> None:
        self.start_backup().kill()
        self.wait_until_only_chunks_are_left()

    def test_stopping_the_daemon_cancels_jobs(self) -> None:
        backup = self.start_backup()
        self.assertEqual(self.daemon.stop(), 0)
        output, _ = backup.communicate(timeout=30)
        self.assertNotEqual(backup.returncode, 0)
        self.assertIn("Error", json.loads(output))
        self.daemon.start()
        self.wait_until_only_chunks_are_left()

    def test_jobs_are_listed_and_cancelled(self) -> None:
        self.assertEqual(convoy("jobs"), "{}")
        backup = self.start_backup()
        (job,) = convoy_json("jobs").values()
        self.assertEqual((job["Kind"], job["Object"], job["State"]), ("backup", "s1", "running"))
        self.assertLess(int(job["BytesDone"]), int(job["BytesTotal"]))
        self.assertLess(0, int(job["BytesPerSecond"]))
        self.assertEqual(convoy("jobs", "cancel", job["ID"]), "")
        output, _ = backup.communicate(timeout=30)
        self.assertEqual(backup.returncode, 130)
        self.assertIn("cancelled", json.loads(output)["Error"])
        self.assertIn(f"no job {job['ID']}", convoy_error("jobs", "cancel", job["ID"]))
        self.assertEqual(convoy("jobs", "-o", "table"), "ID  KIND  OBJECT  STATE  DONE  RATE  LEFT")
        self.wait_until_only_chunks_are_left()

    def test_a_killed_daemon_s_backup_is_not_there_and_the_next_one_is_whole(self) -> None:
        self.start_backup()
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(convoy("backup", "list", self.url), "{}")
        self.assertEqual(dm_devices(), ["big", "convoy-pool"])
        self.check_that_what_arrived_is_not_stored_again()
        # Its lease is younger than what counts as dead, and nothing but impatience ends it now.
        (unlocked,) = convoy_json("backup", "unlock", self.url)["Unlocked"]
        self.assertEqual(list(self.destination.rglob("leases/*.json")), [])
        self.assertIn("no backup", convoy_error("backup", "inspect", unlocked["BackupURL"]))

    def test_a_backup_that_is_unlocked_fails(self) -> None:
        backup = self.start_backup()
        self.assertEqual(len(convoy_json("backup", "unlock", self.url)["Unlocked"]), 1)
        output, _ = backup.communicate(timeout=120)
        self.assertEqual(backup.returncode, 1)
        self.assertIn("lost its lease", json.loads(output)["Error"])
        self.wait_until_only_chunks_are_left()
        self.check_that_what_arrived_is_not_stored_again()

    def test_an_interrupted_restore_leaves_no_volume(self) -> None:
        url = convoy("backup", "create", "s1", "--dest", self.url)
        for how in ("interrupt", "kill the client", "kill the daemon"):
            restore = self.start("create", "copy", "--backup", url)
            while "copy" not in dm_devices():
                time.sleep(0.01)
            run("dmsetup", "suspend", "--noflush", "--nolockfs", "copy")  # it takes as long as we want
            self.assertIsNone(restore.poll(), "it ended before it could be interrupted")
            if how == "interrupt":
                self.assertEqual([volume["Name"] for volume in docker("VolumeDriver.List")["Volumes"]], ["big"])
                self.assertIn("volume 'copy' is being restored", docker("VolumeDriver.Mount", Name="copy", ID="c")["Err"])
                self.assertIn("volume 'copy' is being restored", docker("VolumeDriver.Remove", Name="copy")["Err"])
                self.assertIn("with other options", docker("VolumeDriver.Create", Name="copy", Opts={"size": "1G"})["Err"])
                restore.send_signal(signal.SIGINT)
                time.sleep(0.5)
                run("dmsetup", "resume", "copy", check=False)  # gone already, if nothing had been written yet
                restore.communicate(timeout=30)
                self.assertEqual(restore.returncode, 130)
            elif how == "kill the client":
                restore.kill()
                time.sleep(0.5)
                run("dmsetup", "resume", "copy", check=False)  # gone already, if nothing had been written yet
            else:
                run("dmsetup", "resume", "copy")
                self.daemon.kill()
                self.daemon.start()
            deadline = time.monotonic() + 20
            while "copy" in dm_devices() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(dm_devices(), ["big", "convoy-pool"], how)
            self.assertEqual(convoy("create", "copy", "--size", "64M"), "copy")  # the name is free
            convoy("delete", "copy")

    def test_a_restore_that_fails_leaves_no_volume(self) -> None:
        url = convoy("backup", "create", "s1", "--dest", self.url)
        pack = sorted(self.destination.rglob("*.data"))[-1]
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 1
        pack.write_bytes(content)
        self.assertIn(pack.name, convoy_error("create", "copy", "--backup", url))
        self.assertEqual(list(convoy_json("list")), ["big"])
        self.assertEqual(dm_devices(), ["big", "convoy-pool"])

    def test_a_terminal_shows_the_progress(self) -> None:
        master, slave = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "backup", "create", "s1", "--dest", self.url], stdout=subprocess.PIPE, stderr=slave, text=True
        )
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 4096):
                shown += piece
        except OSError:  # EIO: the other side is closed
            pass
        os.close(master)
        process.communicate()
        self.assertEqual(process.returncode, 0)
        self.assertRegex(shown.decode(), r"\[#+\.*\] +\d+%  [\d.]+ [KM]iB of [\d.]+ MiB  [\d.]+ .?i?B/s  [\d:-]+ left")


if __name__ == "__main__":
    unittest.main(verbosity=2)
