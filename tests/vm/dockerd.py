"""A real Docker in the machine: containerd, dockerd, the client, an image that is busybox alone; and tests that use it."""

import contextlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from support import SOCKET, DockerCall, PoolTest, convoy, mounts, run

DRIVER = "convoy"
SPEC = Path("/etc/docker/plugins/convoy.spec")
MOUNTS = Path("/var/lib/convoy/devicemapper/mounts")
OUT = Path(os.environ["VM_OUT"])

# Where ./dev unpacks Debian's packages.
UNPACKED = Path(os.environ["CONVOY_BUILD_DIR"], "docker")
os.environ["PATH"] = f"{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin:{os.environ['PATH']}"

# What they would write to the machine's root, an overlay, on which there can be no other.
STORAGE = [Path("/var/lib/docker"), Path("/var/lib/containerd")]

# Of containerd's parts only what runs a container: the others take time at every start.
CONTAINERD_CONFIG = """
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""


def docker(*words: str, timeout: float = 120) -> str:
    """A command that must succeed; what it prints, without the last newline."""
    return run("docker", *words, timeout=timeout).stdout.removesuffix("\n")


def engine(path: str):
    """What Docker answers to a GET, as the client would ask it, which is a large program and slow to start."""
    with contextlib.closing(DockerCall(Path("/var/run/docker.sock"))) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, f"{path}: {response.status} {response.read()!r}"
        return json.loads(response.read())


def docker_json(*words: str) -> dict:
    """The only element of what `docker ... inspect` prints."""
    (answer,) = json.loads(docker(*words))
    return answer


def docker_error(*words: str, timeout: float = 120) -> str:
    """A command that must fail; what it says."""
    result = run("docker", *words, check=False, timeout=timeout)
    if result.returncode == 0:
        raise AssertionError(f"docker {words} succeeded: {result.stdout}")
    return result.stderr


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


def write_spec() -> None:
    SPEC.parent.mkdir(parents=True, exist_ok=True)
    SPEC.write_text(f"unix://{SOCKET}\n")


def mount_points() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


class Dockerd:
    """dockerd, and a containerd that is not its child: so it starts faster, and its restart is no restart of that."""

    def __init__(self) -> None:
        run("mount", "--make-rshared", "/")
        self.mounts_before = mount_points() | {"/sys/fs/cgroup"}
        run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup")
        for path in STORAGE:
            path.mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "none", path)
        config = Path("/run/containerd.toml")
        config.write_text(CONTAINERD_CONFIG)
        self.containerd = self.spawn("containerd", "--config", str(config))
        self.process: subprocess.Popen | None = None
        self.start()
        self.import_image()

    @staticmethod
    def spawn(*command: str) -> subprocess.Popen:
        with (OUT / f"{command[0]}.log").open("a") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def start(self, *options: str) -> None:
        # The machine has no network and no udev.
        command = ["dockerd", "--debug", "--containerd", "/run/containerd/containerd.sock", "--storage-driver=overlay2"]
        command += ["--exec-opt", "native.cgroupdriver=cgroupfs", "--bridge=none"]
        command += ["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        self.process = self.spawn(*command, *options)
        wait_for("dockerd is up", self.is_up)

    def is_up(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise AssertionError(f"dockerd ended:\n{(OUT / 'dockerd.log').read_text()[-2000:]}")
        with contextlib.suppress(OSError):
            return bool(engine("/version"))
        return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.process
        self.process.send_signal(how)
        self.process.wait(timeout=60)
        self.process = None

    def close(self) -> None:
        """Nothing of Docker runs, and nothing of it is mounted but where it stores things."""
        if self.process:
            self.stop()
        self.containerd.terminate()
        self.containerd.wait(timeout=30)
        for path in STORAGE:
            run("umount", path)  # fails if something is mounted below it
        left = mount_points() - self.mounts_before
        shims = run("pgrep", "-a", "containerd-shim", check=False).stdout
        if left or shims:
            raise AssertionError(f"left over: {left} {shims}")

    @staticmethod
    def import_image() -> None:
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            archive.add("/bin/busybox", "bin/busybox")
            for applet in ("cat", "dd", "echo", "sh", "sleep", "wc"):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        subprocess.run(["docker", "import", "-", "busybox"], input=content.getvalue(), capture_output=True, check=True)


class DockerTest(PoolTest):
    """Docker runs all the time; after a test it has no container and no volume."""

    pool = {"defaultvolumesize": "64M"}
    dockerd: Dockerd  # the suite's, made by start_docker()

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(self.remove_everything)

    def remove_everything(self) -> None:
        if not self.daemon.process:
            self.daemon.start()
        if not self.dockerd.process:
            self.dockerd.start()
        if containers := [container["Id"] for container in engine("/containers/json?all=1")]:
            docker("rm", "-f", *containers)
        if volumes := [volume["Name"] for volume in engine("/volumes")["Volumes"] or []]:
            docker("volume", "rm", *volumes)
        self.assertEqual(mounts(), [], "still mounted without a container")
        self.assertEqual(convoy("list"), "{}")

    def run_container(self, *words: str) -> str:
        return docker("run", "--network", "none", *words)

    def start_writer(self, name: str, volume: str = "db", *options: str) -> None:
        """A container that appends numbered lines to /data/NAME, each with fsync; it logs those that are on the disk."""
        script = f"""
            trap exit TERM
            n=$(cat /data/{name} | wc -l)
            while n=$((n + 1)); do
              echo $n | dd of=/data/{name} oflag=append conv=notrunc,fsync 2>/dev/null || exit
              echo $n
              sleep 0.3
            done
        """
        mount = ["-v", f"{volume}:/data", f"--volume-driver={DRIVER}"]
        self.run_container("-d", "--name", name, *mount, *options, "busybox", "sh", "-c", script)

    def lines(self, name: str, volume: str = "db") -> int:
        """How many lines that writer has written. None is missing, and none is there twice."""
        path = MOUNTS / volume / name
        text = path.read_text() if path.exists() else ""
        written = [int(line) for line in text.splitlines()]
        self.assertEqual(written, list(range(1, len(written) + 1)))
        return len(written)

    def assert_writes_on(self, name: str, volume: str = "db") -> None:
        before = self.lines(name, volume)
        wait_for(f"{name} writes on after line {before}", lambda: self.lines(name, volume) > before + 2)

    def assert_nothing_lost(self, name: str, volume: str = "db") -> None:
        """What a writer, which has ended, was told to be on the disk is in its file."""
        told = [int(line) for line in docker("logs", name).split()]
        convoy("mount", volume)
        self.assertGreaterEqual(self.lines(name, volume), max(told))
        convoy("umount", volume)


def start_docker() -> None:
    """For a suite's setUpModule()."""
    write_spec()
    DockerTest.dockerd = Dockerd()
    unittest.addModuleCleanup(DockerTest.dockerd.close)
