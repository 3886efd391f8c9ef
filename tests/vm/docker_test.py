"""Docker itself uses the plugin: volumes, containers, and a backup beside them."""
# budget: 1800
# long budget: 900
# machine: --memory 2G --disk data=2G --disk meta=64M --disk slow=512M

import os
import signal
import statistics
import subprocess
import threading
import time
import unittest
from pathlib import Path

from dockerd import DRIVER, SPEC, DockerTest, docker, docker_error, docker_json, start_docker, wait_for, write_spec
from support import MIB, SOCKET, allow_kernel, convoy, convoy_error, convoy_json, mounts, run
from support import docker as plugin


def setUpModule() -> None:
    start_docker()


class Volumes(DockerTest):
    def test_create_list_inspect_remove(self) -> None:
        self.assertEqual(docker("volume", "create", "-d", DRIVER, "-o", "size=128M", "db"), "db")
        self.assertEqual(convoy_json("inspect", "db")["DriverInfo"]["Size"], str(128 * MIB))
        convoy("create", "made-by-convoy", "--size", "64M")
        listed = docker("volume", "ls", "--filter", f"driver={DRIVER}", "--format", "{{.Name}} {{.Driver}}")
        self.assertEqual(listed.splitlines(), ["db convoy", "made-by-convoy convoy"])
        volume = docker_json("volume", "inspect", "db")
        self.assertEqual((volume["Name"], volume["Driver"], volume["Mountpoint"]), ("db", "convoy", ""))
        self.assertEqual((volume["Options"], volume["Scope"]), ({"size": "128M"}, "local"))
        mountpoint = convoy("mount", "made-by-convoy")
        self.assertEqual(docker_json("volume", "inspect", "made-by-convoy")["Mountpoint"], mountpoint)

        self.assertIn("is mounted at", docker_error("volume", "rm", "made-by-convoy"))
        convoy("umount", "made-by-convoy")
        docker("volume", "rm", "db", "made-by-convoy")
        self.assertEqual(convoy("list"), "{}")
        self.assertIn("colour", docker_error("volume", "create", "-d", DRIVER, "-o", "colour=red", "db"))
        self.assertEqual(docker("volume", "ls", "-q"), "")

    def test_create_from_a_backup(self) -> None:
        convoy("create", "db", "--size", "64M")
        Path(convoy("mount", "db"), "file").write_text("kept")
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        convoy("umount", "db")
        docker("volume", "create", "-d", DRIVER, "-o", f"backup={url}", "copy")
        self.assertEqual(self.run_container("--rm", "-v", "copy:/data", "busybox", "cat", "/data/file"), "kept")

    def test_prune_leaves_them_alone(self) -> None:
        # It is for Docker's own volumes, whatever else is unused.
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        docker("volume", "create", "local")
        self.assertIn("local", docker("volume", "prune", "-f"))
        self.assertEqual(docker("volume", "ls", "-q"), "db")


class Containers(DockerTest):
    def test_docker_makes_and_removes_volumes_with_containers(self) -> None:
        driver = f"--volume-driver={DRIVER}"
        # A name that there is no volume of: Docker makes it, and it stays.
        self.run_container("--rm", "-v", "new:/data", driver, "busybox", "sh", "-c", "echo kept > /data/file")
        self.assertEqual(self.run_container("--rm", "-v", "new:/data", driver, "busybox", "cat", "/data/file"), "kept")
        # Without a name, it is the container's, and goes with it.
        for options in (["--rm"], ["--name", "box"]):
            self.run_container(*options, "-v", "/data", driver, "busybox", "sh", "-c", "echo gone > /data/file")
        (nameless,) = set(convoy_json("list")) - {"new"}
        self.assertEqual(len(nameless), 64)
        docker("rm", "-v", "box")
        self.assertEqual(list(convoy_json("list")), ["new"])
        self.assertEqual(mounts(), [])

    def test_two_containers_share_a_volume_and_stop_in_either_order(self) -> None:
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.start_writer("one")
        self.start_writer("two")
        self.assertIn("volume is in use", docker_error("volume", "rm", "db"))
        self.assertIn("is mounted at", plugin("VolumeDriver.Remove", Name="db")["Err"])
        # The command line is one more user. Its end, told for want of an unmount as a refusal, ends no other's use.
        convoy("mount", "db")
        for _ in range(2):
            self.assertRegex(convoy_error("umount", "db"), r"by the mount ids [0-9a-f]{64}, [0-9a-f]{64}")
        self.assert_writes_on("one")
        for first, other in (("one", "two"), ("two", "one")):
            docker("stop", first)
            self.assert_writes_on(other)
            docker("start", first)
            self.assert_writes_on(first)
        docker("rm", "-f", "two")
        self.assert_writes_on("one")
        docker("kill", "one")
        wait_for("the last user's end unmounts it", lambda: mounts() == [])
        # A container that has ended is a user for Docker, though not for convoy.
        self.assertIn("volume is in use", docker_error("volume", "rm", "db"))
        self.assert_nothing_lost("one")


class Registration(DockerTest):
    """Docker has known the plugin by its spec so far; now by a socket in a directory of its own."""

    def test_a_socket_in_docker_s_directory_needs_no_spec(self) -> None:
        SPEC.unlink()
        self.addCleanup(write_spec)
        self.dockerd.stop()
        self.dockerd.start()
        self.daemon.stop()
        self.daemon.socket = Path("/run/docker/plugins/convoy.sock")
        self.daemon.start()
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.assertEqual(docker("volume", "ls", "-q"), "db")
        self.assertIn("db", convoy("list", socket=self.daemon.socket))
        docker("volume", "rm", "db")
        self.assertEqual(convoy("list", socket=self.daemon.socket), "{}")
        self.daemon.stop()
        self.assertFalse(self.daemon.socket.exists())
        self.daemon.socket = SOCKET
        # What Docker has found it keeps: without this it would go on to ask at the old place.
        self.dockerd.stop()


def make_large_snapshot() -> None:
    """The snapshot s1 of the volume big, whose backup takes seconds."""
    convoy("create", "big", "--size", "512M")
    noise = os.urandom(4 * MIB)
    with Path(convoy("mount", "big"), "file").open("wb") as file:
        for i in range(64):
            file.write(noise[i:] + noise[:i])  # not the same chunk twice
    convoy("umount", "big")
    convoy("snapshot", "create", "big", "--name", "s1")


class BesideABackup(DockerTest):
    """Whole backups follow each other for as long as the test needs."""

    def setUp(self) -> None:
        super().setUp()
        make_large_snapshot()
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.stopping = threading.Event()
        self.backups = threading.Thread(target=self.back_up)
        self.addCleanup(self.backups.join)
        self.addCleanup(self.stopping.set)

    def back_up(self) -> None:
        while not self.stopping.is_set():
            convoy("backup", "delete", convoy("backup", "create", "s1", "--dest", self.url))

    def test_docker_and_its_calls_need_not_wait(self) -> None:
        self.print_times("without a backup", self.time_calls(10))
        self.backups.start()
        wait_for("chunks are stored", lambda: list(self.destination.rglob("*.data")))
        times = self.time_calls(30)
        self.print_times("beside backups", times)
        self.assertLess(max(max(taken) for taken in times.values()), 2)
        for words in (
            ["volume", "ls"],
            ["volume", "inspect", "db"],
            ["run", "--rm", "--network", "none", "-v", "db:/data", "busybox", "sh", "-c", "echo kept > /data/file"],
            ["volume", "rm", "db"],
        ):
            start = time.monotonic()
            docker(*words)
            print(f"docker {' '.join(words[:2])} beside backups: {time.monotonic() - start:.1f} s")
        self.assertTrue(self.backups.is_alive(), "a backup failed")

    def time_calls(self, count: int) -> dict[str, list[float]]:
        """The seconds that each of `count` calls of each kind takes."""
        times: dict[str, list[float]] = {"List": [], "Get": [], "Path": [], "Mount": []}
        for i in range(count):
            for call, taken in times.items():
                start = time.monotonic()
                self.assertNotIn("Err", plugin(f"VolumeDriver.{call}", Name="db", ID=f"user{i}"))
                taken.append(time.monotonic() - start)
            plugin("VolumeDriver.Unmount", Name="db", ID=f"user{i}")  # so that each Mount is a real one
        return times

    @staticmethod
    def print_times(when: str, times: dict[str, list[float]]) -> None:
        figures = [
            f"{call} {statistics.median(taken) * 1000:.0f} ms (at most {max(taken) * 1000:.0f})"
            for call, taken in times.items()
        ]
        print(f"{when}: {', '.join(figures)}")


class Options(DockerTest):
    def test_docker_passes_options_on_and_shows_the_volume_s_status(self) -> None:
        options = {"size": "300M", "fs": "xfs", "mkfs-options": "-L mine -l size=70m", "mount-options": "noatime,nodev"}
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        docker("volume", "create", "-d", DRIVER, *words, "db")
        convoy("snapshot", "create", "db", "--name", "s1")
        volume = docker_json("volume", "inspect", "db")
        self.assertEqual(volume["Options"], options)
        status = volume["Status"]
        self.assertEqual((status["Device"], status["Filesystem"]), ("/dev/mapper/db", "xfs"))
        self.assertEqual((status["Size"], status["Snapshots"]), (300 * MIB, ["s1"]))
        self.assertLess(0, status["Used"])
        mounted = self.run_container("--rm", "-v", "db:/data", "busybox", "cat", "/proc/mounts")
        (line,) = [line for line in mounted.splitlines() if " /data " in line]
        self.assertRegex(line, "xfs .*nodev.*noatime")
        error = docker_error("volume", "create", "-d", DRIVER, "-o", "colour=red", "other")
        for option in ("colour", "backup", "s3-endpoint", *options):
            self.assertIn(option, error)

    def test_a_restore_outlives_the_docker_that_asked_for_it(self) -> None:
        make_large_snapshot()
        url = convoy("backup", "create", "s1", "--dest", self.url)
        command = subprocess.Popen(
            ["docker", "volume", "create", "-d", DRIVER, "-o", f"backup={url}", "copy"], stderr=subprocess.DEVNULL
        )
        wait_for("the restore is under way", lambda: "being restored" in self.mount_error("copy"))
        self.dockerd.stop(signal.SIGKILL)
        self.assertNotEqual(command.wait(timeout=60), 0)
        self.assertRegex(self.mount_error("copy"), r"'copy' is being restored: \d+ % of ")
        self.assertIn("no volume 'copy'", plugin("VolumeDriver.Get", Name="copy")["Err"])
        self.assertEqual([volume["Name"] for volume in plugin("VolumeDriver.List")["Volumes"]], ["big"])
        # Whoever says less than the one who began joins, too.
        self.assertEqual(plugin("VolumeDriver.Create", Name="copy", Opts={}), {})
        self.assertEqual(plugin("VolumeDriver.Create", Name="copy", Opts={"backup": url}), {})
        self.dockerd.start()
        size = self.run_container("--rm", "-v", "copy:/data", "busybox", "sh", "-c", "cat /data/file | wc -c")
        self.assertEqual(size, str(256 * MIB))

    def mount_error(self, volume: str) -> str:
        return plugin("VolumeDriver.Mount", Name=volume, ID="nobody").get("Err", "")


class SlowDestination(DockerTest):
    """In the long form only: Docker's patience with a Create is two minutes."""

    def setUp(self) -> None:
        super().setUp()
        disk = os.environ["DISK_SLOW"]
        sectors = run("blockdev", "--getsz", disk).stdout.strip()
        # What is read comes late; what is written does not wait.
        run("dmsetup", "create", "slow", "--table", f"0 {sectors} delay {disk} 0 2000 {disk} 0 0")
        self.addCleanup(run, "dmsetup", "remove", "slow")
        run("mkfs.ext4", "-q", "/dev/mapper/slow")
        self.destination = Path("/tmp/slow")
        self.destination.mkdir(exist_ok=True)
        run("mount", "/dev/mapper/slow", self.destination)
        self.addCleanup(run, "umount", self.destination)

    def test_a_restore_goes_on_when_docker_gives_up(self) -> None:
        make_large_snapshot()
        url = convoy("backup", "create", "s1", "--dest", f"vfs://{self.destination}/")
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
        words = ["volume", "create", "-d", DRIVER, "-o", f"backup={url}", "copy"]
        start = time.monotonic()
        self.assertIn("context deadline exceeded", docker_error(*words, timeout=600))
        print(f"Docker gave up after {time.monotonic() - start:.0f} s")
        answer = plugin("VolumeDriver.Mount", Name="copy", ID="nobody")
        self.assertRegex(answer["Err"], r"'copy' is being restored: \d+ % of ")
        print(answer["Err"])
        self.assertIn("no volume 'copy'", plugin("VolumeDriver.Get", Name="copy")["Err"])
        while run("docker", *words, check=False, timeout=600).returncode != 0:
            self.assertLess(time.monotonic() - start, 900)
        print(f"the restore took {time.monotonic() - start:.0f} s")
        size = self.run_container("--rm", "-v", "copy:/data", "busybox", "sh", "-c", "cat /data/file | wc -c")
        self.assertEqual(size, str(256 * MIB))


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    cases = [Volumes, Containers, Registration, BesideABackup, Options]
    if os.environ.get("CONVOY_TEST_LONG"):
        cases = [SlowDestination]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    # The kernel tells of each mount, and that it has stopped telling.
    allow_kernel("EXT4-fs .*callbacks suppressed")
    unittest.main(verbosity=2)
