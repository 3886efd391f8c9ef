"""Docker's plugin protocol, all eight calls and Plugin.Activate, spoken as Docker does."""
# budget: 800

import concurrent.futures
import json
import os
import subprocess
import threading
import time
import unittest
from pathlib import Path

from support import SOCKET, Daemon, DockerCall, PoolTest, convoy, convoy_error, convoy_json, docker, mounts, run, wait_until

UUID = "01a20728-11d7-7c69-bd8d-bb687a08cfd8"
MOUNTPOINT = "/var/lib/convoy/devicemapper/mounts/db"


def waits_for_a_disk(daemon: Daemon) -> bool:
    assert daemon.process
    tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/stat")
    return any(task.read_text().rpartition(")")[2].split()[0] == "D" for task in tasks)


class Protocol(PoolTest):
    def test_handshake(self) -> None:
        self.assertEqual(docker("Plugin.Activate"), {"Implements": ["VolumeDriver"]})
        self.assertEqual(docker("VolumeDriver.Capabilities"), {"Capabilities": {"Scope": "local"}})

    def test_create_get_list_path_remove(self) -> None:
        self.assertEqual(docker("VolumeDriver.List"), {"Volumes": []})
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"}), {})
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts=None), {})  # once more is success
        self.assertEqual(docker("VolumeDriver.Create", Name="plain", Opts=None), {})
        self.assertEqual(convoy_json("inspect", "db")["DriverInfo"]["Size"], str(64 << 20))
        self.assertEqual(convoy_json("inspect", "plain")["DriverInfo"]["Size"], str(100 << 30))
        volume = docker("VolumeDriver.Get", Name="db")["Volume"]
        self.assertEqual((volume["Name"], volume["Mountpoint"]), ("db", ""))
        self.assertRegex(volume["CreatedAt"], r"^\d{4}-\d\d-\d\dT.*Z$")
        status = volume["Status"]
        self.assertEqual((status["Device"], status["Filesystem"]), ("/dev/mapper/db", "ext4"))
        self.assertEqual((status["Size"], status["Snapshots"]), (64 << 20, []))
        self.assertLess(0, status["Used"])
        self.assertEqual([volume["Name"] for volume in docker("VolumeDriver.List")["Volumes"]], ["db", "plain"])
        self.assertEqual(docker("VolumeDriver.Path", Name="db"), {"Mountpoint": ""})
        self.assertEqual(docker("VolumeDriver.Remove", Name="plain"), {})
        self.assertEqual(docker("VolumeDriver.Remove", Name="plain"), {})  # of an unknown name: success
        self.assertIn("no volume 'plain'", docker("VolumeDriver.Get", Name="plain")["Err"])

    def test_two_containers_on_one_volume(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        for user in ("first", "second", "second"):
            self.assertEqual(docker("VolumeDriver.Mount", Name="db", ID=user), {"Mountpoint": MOUNTPOINT})
        Path(MOUNTPOINT, "file").write_text("shared")
        self.assertEqual(docker("VolumeDriver.Path", Name="db"), {"Mountpoint": MOUNTPOINT})
        self.assertIn("mounted at", docker("VolumeDriver.Remove", Name="db")["Err"])

        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="first"), {})
        self.assertEqual(Path(MOUNTPOINT, "file").read_text(), "shared")
        self.assertIn("by the mount ids second", convoy_error("umount", "db"))
        # The reference count outlives the daemon.
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="first"), {})
        self.assertEqual(mounts(), [MOUNTPOINT])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="second"), {})
        self.assertEqual(mounts(), [])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="second"), {})
        self.assertEqual(docker("VolumeDriver.Remove", Name="db"), {})

    def test_a_container_starts_while_a_snapshot_waits_for_a_slow_disk(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        docker("VolumeDriver.Mount", Name="db", ID="first")
        Path(MOUNTPOINT, "file").write_bytes(os.urandom(1 << 20))
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "db")  # nothing gets to the disk
        with concurrent.futures.ThreadPoolExecutor() as threads:
            try:
                snapshot = threads.submit(convoy, "snapshot", "create", "db", "--name", "s1")
                wait_until("the snapshot's sync", lambda: waits_for_a_disk(self.daemon))
                second = threads.submit(docker, "VolumeDriver.Mount", Name="db", ID="second")
                self.assertEqual(second.result(timeout=30), {"Mountpoint": MOUNTPOINT})
                self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="first"), {})
                last = threads.submit(docker, "VolumeDriver.Unmount", Name="db", ID="second")
                time.sleep(0.5)
                self.assertFalse(snapshot.done() or last.done())
            finally:
                run("dmsetup", "resume", "db")
            self.assertEqual((snapshot.result(), last.result()), ("s1", {}))
        self.assertEqual(mounts(), [])

    def test_the_command_line_is_one_more_user(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("mount", "db")
        docker("VolumeDriver.Mount", Name="db", ID="container")
        docker("VolumeDriver.Unmount", Name="db", ID="container")
        self.assertEqual(mounts(), [MOUNTPOINT])
        convoy("umount", "db")
        self.assertEqual(mounts(), [])

    def test_a_busy_mount_is_reported_and_not_forgotten(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        docker("VolumeDriver.Mount", Name="db", ID="container")
        with Path(MOUNTPOINT, "open").open("w"):
            self.assertIn("still uses a file", docker("VolumeDriver.Unmount", Name="db", ID="container")["Err"])
        self.assertEqual(mounts(), [MOUNTPOINT])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="container"), {})

    def test_create_from_a_backup(self) -> None:
        convoy("create", "db", "--size", "64M")
        Path(convoy("mount", "db"), "file").write_text("kept")
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        self.assertEqual(docker("VolumeDriver.Create", Name="copy", Opts={"backup": url}), {})
        mountpoint = docker("VolumeDriver.Mount", Name="copy", ID="container")["Mountpoint"]
        self.assertEqual(Path(mountpoint, "file").read_text(), "kept")
        docker("VolumeDriver.Unmount", Name="copy", ID="container")

    def test_what_is_refused(self) -> None:
        for options, sentence in (
            ({"size": "lots"}, "is not a size"),
            ({"colour": "red"}, "unknown option 'colour'; there are size, fs, backup, s3-endpoint (or endpoint), mkfs-options"),
            ({"fs": "btrfs"}, "choose ext4 or xfs"),
            ({"mkfs-options": "--nonsense"}, "mkfs.ext4 ended with status 1"),
            ({"driver": "ebs"}, "no driver 'ebs'"),
            ({"backup": "nonsense"}, "nonsense"),
            ({"backup": ""}, "the option 'backup' has no value"),
            ({"endpoint": "https://host"}, "give backup=URL, too"),
        ):
            self.assertIn(sentence, docker("VolumeDriver.Create", Name="x", Opts=options)["Err"])
        self.assertIn("needs a Name", docker("VolumeDriver.Create", Name="", Opts={})["Err"])
        self.assertIn("can't be the name", docker("VolumeDriver.Create", Name="../../evil", Opts={})["Err"])
        self.assertIn("no volume", docker("VolumeDriver.Mount", Name="unknown", ID="container")["Err"])
        self.assertIn("not a text", docker("VolumeDriver.Get", Name=7)["Err"])
        # The start of a UUID is a name for the command line, not for Docker.
        convoy("create", "db", "--size", "64M")
        start = convoy_json("inspect", "db")["UUID"][:12]
        self.assertEqual(convoy_json("inspect", start)["Name"], "db")
        self.assertIn("no volume", docker("VolumeDriver.Get", Name=start)["Err"])


    def test_options_and_who_agrees_with_them(self) -> None:
        options = {"size": "300M", "fs": "xfs", "mkfs-options": "-L  mine", "mount-options": "noatime,nodev"}
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts=options), {})
        self.assertIn("LABEL=mine\n", run("blkid", "-o", "export", "/dev/mapper/db").stdout)
        mountpoint = docker("VolumeDriver.Mount", Name="db", ID="container")["Mountpoint"]
        (line,) = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {mountpoint} " in line]
        self.assertIn("noatime", line)
        self.assertIn("nodev", line)
        self.assertIn("nouuid", line)
        docker("VolumeDriver.Unmount", Name="db", ID="container")

        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts=options), {})
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts={"fs": "xfs"}), {})
        for option, value, sentence in (
            ("size", "400M", f"its size is '{300 << 20}'"),
            ("fs", "ext4", "its file system is 'xfs', not 'ext4'"),
            ("mkfs-options", "-L yours", "its list of mkfs options is '-L  mine'"),
            ("mount-options", "ro", "its list of mount options is 'noatime,nodev', not 'ro'"),
            ("backup", f"{self.url}?backup={UUID}&volume={UUID}", f"its backup is 'none', not '{UUID}'"),
        ):
            self.assertIn(sentence, docker("VolumeDriver.Create", Name="db", Opts={option: value})["Err"])
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        self.assertEqual(docker("VolumeDriver.Get", Name="db")["Volume"]["Status"]["Snapshots"], ["s1"])
        for option, value in (("size", "400M"), ("fs", "ext4"), ("mkfs-options", "-L yours")):
            self.assertIn("leave", docker("VolumeDriver.Create", Name="copy", Opts={"backup": url, option: value})["Err"])
        for _ in range(2):
            self.assertEqual(docker("VolumeDriver.Create", Name="copy", Opts={"backup": url, "size": "300M", "mount-options": "ro"}), {})
        mountpoint = docker("VolumeDriver.Mount", Name="copy", ID="container")["Mountpoint"]
        with self.assertRaises(OSError):
            Path(mountpoint, "file").write_text("")
        docker("VolumeDriver.Unmount", Name="copy", ID="container")

    def test_uses_that_nobody_ends_are_ended_by_force(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        for user in ("lost", "forgotten"):
            docker("VolumeDriver.Mount", Name="db", ID=user)
        self.assertIn("by the mount ids forgotten, lost", convoy_error("umount", "db"))
        self.assertEqual(mounts(), [MOUNTPOINT])
        convoy("umount", "--force", "db")
        self.assertEqual(mounts(), [])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="lost"), {})
        convoy("umount", "--force", "db")


class SlowCreation(PoolTest):
    """mkfs takes as long as the file /tmp/slow/wait is there, so each moment can be looked at."""

    def setUp(self) -> None:
        programs = Path("/tmp/slow")
        programs.mkdir(exist_ok=True)
        self.wait = programs / "wait"
        self.wait.touch()
        (programs / "mkfs.ext4").write_text(
            f'#!/bin/sh\nwhile [ -e {self.wait} ]; do sleep 0.05; done\nexec /sbin/mkfs.ext4 "$@"\n'
        )
        (programs / "mkfs.ext4").chmod(0o755)
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{programs}:{path}"
        self.addCleanup(os.environ.__setitem__, "PATH", path)
        super().setUp()

    def test_it_goes_on_without_its_client_and_is_joined(self) -> None:
        request = json.dumps({"Name": "db", "Opts": {"size": "64M"}})
        impatient = DockerCall()
        impatient.request("POST", "/VolumeDriver.Create", request, {"Content-Type": "application/json"})
        while not convoy_jobs():
            time.sleep(0.05)
        impatient.close()

        self.assertIn("no volume 'db'", docker("VolumeDriver.Get", Name="db")["Err"])
        self.assertEqual(docker("VolumeDriver.List"), {"Volumes": []})
        self.assertIn("volume 'db' is being created; try again", docker("VolumeDriver.Mount", Name="db", ID="c")["Err"])
        self.assertIn("with other options", docker("VolumeDriver.Create", Name="db", Opts={"size": "128M"})["Err"])
        self.assertIn("'db' is being created", convoy_error("create", "db", "--size", "64M"))
        self.assertIn("volume 'db' is being created; remove it", docker("VolumeDriver.Remove", Name="db")["Err"])

        answers: list[dict] = []
        joined = [
            threading.Thread(target=lambda opts=opts: answers.append(docker("VolumeDriver.Create", Name="db", Opts=opts)))
            for opts in ({"size": "64M"}, {"fs": "ext4"})  # the pool's default, which the first has left out
        ]
        for thread in joined:
            thread.start()
        time.sleep(0.5)
        self.assertEqual((answers, len(convoy_jobs())), ([], 1))
        self.wait.unlink()
        for thread in joined:
            thread.join()
        self.assertEqual(answers, [{}, {}])
        self.assertEqual(docker("VolumeDriver.Mount", Name="db", ID="c"), {"Mountpoint": MOUNTPOINT})
        docker("VolumeDriver.Unmount", Name="db", ID="c")


    def test_docker_knows_of_what_the_command_line_makes(self) -> None:
        create = subprocess.Popen(["convoy", "-s", SOCKET, "create", "db", "--size", "64M"], stdout=subprocess.PIPE, text=True)
        while not convoy_jobs():
            time.sleep(0.05)
        self.assertIn("volume 'db' is being created; try again", docker("VolumeDriver.Mount", Name="db", ID="c")["Err"])
        answers: list[dict] = []
        joined = threading.Thread(target=lambda: answers.append(docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})))
        joined.start()
        self.wait.unlink()
        joined.join()
        self.assertEqual((create.communicate()[0], answers), ("db\n", [{}]))


def convoy_jobs() -> list[dict]:
    connection = DockerCall()
    connection.request("GET", "/v1/jobs")
    jobs = json.loads(connection.getresponse().read())
    connection.close()
    return jobs


class KeepAndCreate(PoolTest):
    options = ("--ignore-docker-delete", "--create-on-docker-mount")

    def test_docker_deletes_nothing_and_mounts_make_volumes(self) -> None:
        info = convoy_json("info")["General"]
        self.assertEqual((info["IgnoreDockerDelete"], info["CreateOnDockerMount"]), (True, True))
        self.assertIn("Mountpoint", docker("VolumeDriver.Mount", Name="new", ID="container"))
        docker("VolumeDriver.Unmount", Name="new", ID="container")
        self.assertEqual(docker("VolumeDriver.Remove", Name="new"), {})
        self.assertEqual(list(convoy_json("list")), ["new"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
