"""The package's service under systemd as process 1: its start and end, mount propagation, and the order with Docker, which is
Debian's with its own units."""
# budget: 800
# needs the package
# machine: --init systemd --memory 2G --disk data=2G --disk meta=64M

import json
import os
import re
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from dockerd import STORAGE, UNPACKED, Dockerd, docker, wait_for
from support import DATA, META, MIB, convoy_error, dm_devices, mounts, run, shut_down_pool, thin_check

BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
DEFAULTS = Path("/etc/default/convoy")
SOCKET = Path("/var/run/convoy/convoy.sock")
OPTIONS = f"--driver-opts dm.datadev={DATA} --driver-opts dm.metadatadev={META}"

# The machine has no network.
DOCKER_OPTIONS = "--storage-driver=overlay2 --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false"
# What a host does as it comes up and goes down: both services at once, in the order that they give.
BOOT = "[Unit]\nWants=docker.service convoy.service\n"
SHUTDOWN = "[Unit]\nConflicts=docker.service convoy.service\nAfter=docker.service convoy.service\n"


def convoy(*words: str | Path) -> str:
    """As a user of the package would: the installed program, the default socket."""
    return run("/usr/bin/convoy", *words).stdout.removesuffix("\n")


def show(name: str, unit: str = "convoy") -> str:
    return run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()


def main_process() -> int:
    return int(show("MainPID"))


def journal() -> str:
    return run("journalctl", "--no-pager", "--lines", "20", "-o", "cat", "-u", "convoy").stdout


def wait_until(what: str, condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain: {what}\n{journal()}")
        time.sleep(0.1)


def configure(options: str) -> None:
    DEFAULTS.write_text(re.sub("^CONVOY_DAEMON_OPTIONS=.*", f'CONVOY_DAEMON_OPTIONS="{options}"', DEFAULTS.read_text(), flags=re.M))


def guard_process() -> int:
    return int(run("pgrep", "-f", "^convoy-suspend-guard").stdout)


def setUpModule() -> None:
    package = max(BUILD.glob("convoy_*.deb"), key=lambda path: path.stat().st_mtime)
    # A container has one that keeps services from being started.
    Path("/usr/sbin/policy-rc.d").unlink(missing_ok=True)
    run("dpkg", "--install", "--no-triggers", package)
    install_docker()
    units = Path("/etc/systemd/system")
    (units / "boot.target").write_text(BOOT)
    (units / "host-down.target").write_text(SHUTDOWN)
    run("systemctl", "daemon-reload")


def install_docker() -> None:
    for directory in ("bin", "sbin"):
        for program in (UNPACKED / "usr" / directory).iterdir():
            link = Path("/usr", directory, program.name)
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    for unit in (UNPACKED / "lib/systemd/system").iterdir():
        shutil.copy(unit, Path("/lib/systemd/system", unit.name))
    Path("/etc/default/docker").write_text(f'DOCKER_OPTS="{DOCKER_OPTIONS}"\n')
    run("groupadd", "--force", "docker")
    for path in STORAGE:
        path.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "none", path)


class Unconfigured(unittest.TestCase):
    def test_no_failure_and_a_word_in_the_log(self) -> None:
        self.assertEqual(run("systemctl", "is-enabled", "convoy").stdout, "enabled\n")
        self.assertIn("not started: set", journal(), "the package does not try to start it")
        run("systemctl", "start", "convoy")
        self.assertEqual(show("ActiveState"), "inactive")
        self.assertIn("not started: set CONVOY_DAEMON_OPTIONS in /etc/default/convoy", journal())


class Configured(unittest.TestCase):
    """One pool for all tests; each leaves it without volumes and the service running."""

    @classmethod
    def setUpClass(cls) -> None:
        configure(OPTIONS)
        run("systemctl", "start", "convoy")

    @classmethod
    def tearDownClass(cls) -> None:
        run("systemctl", "stop", "convoy")
        shut_down_pool()
        thin_check()

    def tearDown(self) -> None:
        for name, volume in json.loads(convoy("list")).items():
            if volume["MountPoint"]:
                convoy("umount", name)
            convoy("delete", name)

    def stop_and_start_with(self, options: str, *words: str) -> None:
        run("systemctl", "stop", "boot.target", "docker", "convoy")
        configure(options)
        run("systemctl", "reset-failed", "convoy", "docker", check=False)
        run("systemctl", "start", *words)

    def test_started_means_served(self) -> None:
        self.assertEqual(show("ActiveState"), "active")
        self.assertEqual(json.loads(convoy("list")), {})
        self.assertIn("serves /var/run/convoy/convoy.sock", journal())

    def test_hardening_is_in_force(self) -> None:
        status = Path(f"/proc/{main_process()}/status").read_text()
        self.assertRegex(status, r"NoNewPrivs:\t1\n")
        self.assertRegex(status, r"Seccomp:\t2\n")
        self.assertEqual(Path(f"/proc/{main_process()}/oom_score_adj").read_text(), "-500\n")
        self.assertEqual(Path(f"/proc/{guard_process()}/oom_score_adj").read_text(), "-1000\n")

    def test_the_whole_life_of_a_volume(self) -> None:
        destination = Path("/run/backups")
        destination.mkdir(exist_ok=True)
        for filesystem in ("ext4", "xfs"):
            self.stop_and_start_with(f"{OPTIONS} --driver-opts dm.fs={filesystem}", "convoy")
            convoy("create", "db", "--size", "512M")
            file = Path(convoy("mount", "db"), "file")
            file.write_bytes(b"x" * MIB)
            convoy("snapshot", "create", "db", "--name", "s1")
            url = convoy("backup", "create", "s1", "--dest", f"vfs://{destination}/")
            convoy("create", "copy", "--backup", url)
            self.assertEqual(Path(convoy("mount", "copy"), "file").read_bytes(), b"x" * MIB)
            for name in ("copy", "db"):
                convoy("umount", name)
                convoy("delete", name)
            convoy("backup", "delete", url)

    def test_mounts_go_both_ways(self) -> None:
        self.assertEqual(os.readlink(f"/proc/{main_process()}/ns/mnt"), os.readlink("/proc/1/ns/mnt"))
        convoy("create", "db", "--size", "64M")
        # A container that had been there before: what is mounted later reaches it.
        container = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; read word; cat /proc/self/mountinfo"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert container.stdout
        container.stdout.readline()
        mountpoint = convoy("mount", "db")
        self.assertEqual(mounts(), [mountpoint])
        seen, _ = container.communicate("go on\n")
        self.assertIn(f" {mountpoint} ", seen)
        # What others mount or unmount, the service sees.
        run("umount", mountpoint)
        self.assertEqual(json.loads(convoy("inspect", "db"))["MountPoint"], "")
        Path("/mnt/hand").mkdir(exist_ok=True)
        run("mount", "/dev/mapper/db", "/mnt/hand")
        self.assertEqual(json.loads(convoy("inspect", "db"))["MountPoint"], "/mnt/hand")
        run("umount", "/mnt/hand")
        # And what others mount for it.
        convoy("create", "app", "--size", "64M")
        run("mount", "-t", "tmpfs", "none", "/mnt/hand")
        Path("/mnt/hand/app").mkdir()
        self.assertEqual(convoy("mount", "app", "--mountpoint", "/mnt/hand/app"), "/mnt/hand/app")
        convoy("umount", "app")
        run("umount", "/mnt/hand")

    def test_stop_leaves_volumes_mounted(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        run("systemctl", "stop", "convoy")
        self.assertEqual((show("ActiveState"), show("Result")), ("inactive", "success"))
        self.assertIn("no daemon answers", convoy_error("list", socket=SOCKET))
        self.assertFalse(Path("/sys/fs/cgroup/system.slice/convoy.service").exists(), "a process is left")
        self.assertEqual(mounts(), [str(mountpoint)])
        (mountpoint / "file").write_text("written without a daemon")
        os.sync()
        run("systemctl", "start", "convoy")
        self.assertEqual(json.loads(convoy("inspect", "db"))["MountPoint"], str(mountpoint))

    def test_a_killed_daemon_is_started_again(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = convoy("mount", "db")
        before = main_process()
        os.kill(before, signal.SIGKILL)
        wait_until("a restart", lambda: show("SubState") == "running" and main_process() != before)
        self.assertEqual(show("NRestarts"), "1")
        self.assertEqual(json.loads(convoy("inspect", "db"))["MountPoint"], mountpoint)
        self.assertEqual(mounts(), [mountpoint])

    def test_the_guard_of_a_killed_daemon_is_not_killed(self) -> None:
        guard = guard_process()
        # It stands for one that has a volume suspended.
        os.kill(guard, signal.SIGSTOP)
        before = main_process()
        os.kill(before, signal.SIGKILL)
        wait_until("a restart", lambda: main_process() not in (0, before))
        self.assertRegex(Path(f"/proc/{guard}/stat").read_text(), r"\) T ")
        os.kill(guard, signal.SIGCONT)
        wait_until("the start", lambda: show("SubState") == "running")
        self.assertEqual(json.loads(convoy("list")), {})
        self.assertFalse(Path(f"/proc/{guard}").exists())

    def test_a_disk_that_comes_late(self) -> None:
        run("systemctl", "stop", "convoy")
        shut_down_pool()
        self.stop_and_start_with(OPTIONS.replace(DATA, "/dev/late"), "--no-block", "convoy")
        wait_until("a failure", lambda: "/dev/late" in journal())
        run("cp", "-a", DATA, "/dev/late")
        wait_until("the start", lambda: show("SubState") == "running")
        self.assertEqual(json.loads(convoy("list")), {})
        self.stop_and_start_with(OPTIONS, "convoy")

    def test_docker_starts_when_volumes_are_there_and_ends_before(self) -> None:
        self.assertIn("docker.service", show("Before").split())
        run("systemctl", "start", "docker")
        Dockerd.import_image()
        docker("volume", "create", "-d", "convoy", "-o", "size=64M", "db")
        script = "echo begun >> /data/file; trap 'echo ended >> /data/file; exit' TERM; while :; do sleep 0.1; done"
        docker("run", "-d", "--restart=always", "--network=none", "-v", "db:/data", "busybox", "sh", "-c", script)
        file = Path("/var/lib/rancher/convoy/devicemapper/mounts/db/file")
        for times in (1, 2):
            wait_for("the container runs", lambda: file.exists() and file.read_text() == "begun\nended\n" * (times - 1) + "begun\n")
            run("systemctl", "start", "host-down.target")
            self.assertEqual((show("ActiveState"), show("ActiveState", "docker")), ("inactive", "inactive"))
            self.assertEqual(show("Result", "docker"), "success")
            # Docker's end still found the daemon.
            self.assertEqual(mounts(), [])
            shut_down_pool()
            self.assertEqual(dm_devices(), [])
            self.stop_and_start_with(OPTIONS, "boot.target")
        wait_for("the container runs", lambda: file.exists() and file.read_text() == "begun\nended\n" * 2 + "begun\n")
        # It never looked for a plugin that wasn't there yet.
        self.assertNotIn("nable to connect to plugin", run("journalctl", "--no-pager", "-o", "cat", "-u", "docker").stdout)
        docker("rm", "-f", *docker("ps", "-aq").split())

    def test_docker_starts_without_us_when_we_fail(self) -> None:
        self.stop_and_start_with("--colour", "boot.target")
        self.assertEqual(show("ActiveState", "boot.target"), "active")
        self.assertEqual(show("ActiveState", "docker"), "active")
        self.assertNotEqual(show("ActiveState"), "active")
        self.stop_and_start_with(OPTIONS, "convoy")


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (Unconfigured, Configured))


if __name__ == "__main__":
    unittest.main(verbosity=2)
