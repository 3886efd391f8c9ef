"""What the suites in the machine share: the daemon, the command line, Docker's side, and what must not be left over."""

import contextlib
import hashlib
import http.client
import itertools
import json
import mmap
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
sys.path.append(str(TREE / "tests/functional"))
from metadata_blocks import SUPERBLOCK, seal  # noqa: E402

ROOT = Path("/var/lib/convoy")
SOCKET = Path("/run/convoy/convoy.sock")
LOG = Path("/var/log/convoy-test.log")
DATA = os.environ.get("DISK_DATA", "")
META = os.environ.get("DISK_META", "")

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def run(*words: str | Path, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess:
    result = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=timeout, check=False
    )
    if check and result.returncode != 0:
        raise AssertionError(f"{words} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result


def convoy(*words: str | Path, socket: Path = SOCKET) -> str:
    """A command that must succeed; what it prints on standard output, without the last newline."""
    return run("convoy", "--socket", socket, *words).stdout.removesuffix("\n")


def convoy_json(*words: str | Path) -> dict:
    """What a command prints. The frequent ones print what the daemon answers: it is asked without a program, whose start takes a
    tenth of a second in User Mode Linux."""
    match words:
        case ("list",):
            return api("GET", "/v1/volumes")
        case ("info",):
            return api("GET", "/v1/info")
        case ("inspect", name):
            return api("GET", f"/v1/volume?name={name}")
        case ("snapshot", "inspect", name):
            return api("GET", f"/v1/snapshot?name={name}")
    return json.loads(convoy(*words))


def convoy_error(*words: str | Path, socket: Path = SOCKET) -> str:
    """A command that must fail as all do: status 1, the sentence as JSON on standard output and for people on standard error."""
    result = run("convoy", "--socket", socket, *words, check=False)
    if result.returncode != 1:
        raise AssertionError(f"{words} ended with {result.returncode}, not 1: {result.stdout}{result.stderr}")
    error = json.loads(result.stdout)["Error"]
    if error not in result.stderr:
        raise AssertionError(f"standard error does not tell {error!r}: {result.stderr!r}")
    return error


def allow_kernel(pattern: str) -> None:
    """A kernel warning that this suite brings about knowingly."""
    with Path(os.environ["VM_OUT"], "allow-kernel").open("a") as file:
        file.write(pattern + "\n")


# Recovery deletes the thin device of a create that was under way, whether or not the pool had got so far.
UNDONE_CREATE = "thin: Deletion of thin device [0-9]+ failed"


class NotStarted(AssertionError):
    def __init__(self, status: int | None, log: str) -> None:
        super().__init__(f"the daemon did not start, but ended with {status}:\n{log}")
        self.status = status  # nothing if it ran but did not answer


class Daemon:
    """A daemon under a root, on a socket. `pool` is what its first start is given, `options` what every start is given."""

    def __init__(
        self, *options: str, pool: list[str], root: Path = ROOT, socket: Path = SOCKET, program: str | Path = "convoy",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.root, self.socket, self.options, self.program = root, socket, options, program
        self.environment = environment or {}
        self.process: subprocess.Popen | None = None
        self.start(*pool)

    def start(self, *options: str) -> None:
        LOG.parent.mkdir(parents=True, exist_ok=True)
        command = [str(self.program), "--debug", "--socket", str(self.socket), "daemon", "--root", str(self.root)]
        self.log = LOG.open("a")
        self.process = subprocess.Popen(
            [*command, "--drivers", "devicemapper", *self.options, *options], stdout=self.log, stderr=self.log,
            env=os.environ | self.environment,
        )
        deadline = time.monotonic() + 30
        while not is_served(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                status = self.process.poll()
                self.process.kill()
                self.wait()
                raise NotStarted(status, LOG.read_text()[-3000:])
            time.sleep(0.02)

    def stop(self, how: int = signal.SIGTERM) -> int:
        assert self.process
        if how == signal.SIGKILL:
            allow_kernel(UNDONE_CREATE)
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """For its end, which must be near; its status."""
        assert self.process
        status = self.process.wait(timeout=60)
        self.log.close()
        self.process = None
        return status

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


def pool_options(data: str = DATA, meta: str = META, **more: str) -> list[str]:
    options = {"dm.datadev": data, "dm.metadatadev": meta} | {f"dm.{key}": value for key, value in more.items()}
    return [word for key, value in options.items() for word in ("--driver-opts", f"{key}={value}")]


def is_served(path: Path) -> bool:
    """Waits for the answer of a daemon that has made its socket but is still starting."""
    connection = DockerCall(path)
    try:
        connection.request("GET", "/v1/jobs")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class DockerCall(http.client.HTTPConnection):
    """Docker's way to the plugin."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__("plugin")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(str(self.path))


def docker(call: str, **fields: object) -> dict:
    """Calls the plugin as Docker does; an empty Err is taken out."""
    connection = DockerCall()
    connection.request("POST", f"/{call}", json.dumps(fields), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise AssertionError(f"{call}: HTTP status {response.status}")
    if answer.get("Err") == "":
        del answer["Err"]
    return answer


def api(method: str, path: str, **fields: str) -> dict:
    """A call of the command line's, without the start of a program, that must succeed."""
    connection = DockerCall()
    connection.request(method, path, json.dumps(fields) if fields else None)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise AssertionError(f"{method} {path}: {response.status} {body!r}")
    return json.loads(body or "{}")


def mounts() -> list[str]:
    """The mount points of dm devices."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if "/dev/mapper/" in line.split(" - ")[1]]


def backup_create(snapshot: str, destination: str, timeout: float = 120) -> tuple[str, str, int, int]:
    """The backup's URL, "full" or "incremental", and how many bytes were read and stored."""
    result = run("convoy", "--socket", SOCKET, "backup", "create", snapshot, "--dest", destination, timeout=timeout)
    told = re.search(r"(full|incremental) backup: ([\d.]+ \S+) read, ([\d.]+ \S+) stored", result.stderr)
    assert told, result.stderr
    return result.stdout.strip(), told[1], bytes_of(told[2]), bytes_of(told[3])


def bytes_of(text: str) -> int:
    """Of a size for people, such as "1.5 MiB"."""
    number, unit = text.split()
    return int(float(number) * {"B": 1, "bytes": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}[unit])


def wait_until(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"in vain: {what}")
        time.sleep(0.02)


def dm_devices() -> list[str]:
    names = []
    for file in Path("/sys/block").glob("dm-*/dm/name"):
        with contextlib.suppress(OSError):  # it has gone since it was listed
            names.append(file.read_text().strip())
    return sorted(names)


def loop_devices() -> list[str]:
    """The files behind them."""
    return sorted(file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file"))


def remove_tree(directory: Path) -> None:
    """With all that it holds, if it is there."""
    if directory.exists():
        shutil.rmtree(directory)


def read_device(path: str | Path) -> Iterator[memoryview]:
    """All of it, piece by piece, past the page cache: through it, User Mode Linux needs ten times as long."""
    buffer = mmap.mmap(-1, MIB)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while length := os.readv(descriptor, [buffer]):
            yield memoryview(buffer)[:length]
    finally:
        os.close(descriptor)


def device_digest(path: str | Path) -> str:
    digest = hashlib.sha256()
    for piece in read_device(path):
        digest.update(piece)
    return digest.hexdigest()


def file_digest(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_devices(path: str | Path, other: str | Path) -> None:
    """Bit for bit, as cmp does."""
    offset = 0
    for piece, other_piece in itertools.zip_longest(read_device(path), read_device(other)):
        if piece != other_piece:
            raise AssertionError(f"{path} and {other} differ between byte {offset} and {offset + MIB}")
        offset += MIB


def file_digests(directory: str | Path) -> dict[str, str]:
    base = Path(directory)
    return {
        str(path.relative_to(base)): file_digest(path)
        for path in sorted(base.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@contextlib.contextmanager
def snapshot_device(snapshot: str) -> Iterator[str]:
    """A second, read-only dm device on a snapshot, to compare it with something, beside whatever the daemon does."""
    info = convoy_json("snapshot", "inspect", snapshot)["DriverInfo"]
    sectors = int(info["Size"]) // 512
    pool = convoy_json("info")["devicemapper"]["ThinpoolDevice"]
    name = "compare-" + re.sub(r"\W", "", snapshot)
    run("dmsetup", "create", name, "--readonly", "--table", f"0 {sectors} thin {pool} {info['DevID']}")
    try:
        yield f"/dev/mapper/{name}"
    finally:
        run("dmsetup", "remove", name)


def shut_down_pool(disks: tuple[str, ...] = ()) -> None:
    """Everything off, as after a reboot: nothing mounted, no dm device but the disks. The daemon must be down."""
    for target in reversed(mounts()):
        run("umount", target)
    pools = [name for name in dm_devices() if run("dmsetup", "table", name).stdout.split()[2] == "thin-pool"]
    for name in [name for name in dm_devices() if name not in pools] + pools:
        if name not in disks:
            run("dmsetup", "remove", name)


def wipe(*devices: str) -> None:
    """The start of each device zeroed, so that it is new again: no pool or file system is known by anything else."""
    for device in devices:
        with open(device, "r+b") as file:
            file.write(bytes(2 * MIB))
            os.fsync(file.fileno())


def thin_check(device: str = META, *options: str) -> None:
    """Debian's and our own, which agree on sound metadata."""
    run("thin_check", *options, device)
    run("convoy-pdata_tools", "thin_check", *options, device)


def seal_superblock(block: bytearray) -> bytearray:
    """With the checksum that the kernel asks for."""
    seal(block, 0, SUPERBLOCK)
    return block


def check_after_a_cut(device: str) -> None:
    """Sound metadata, but for what a power cut may leave: data blocks that are lost, and a metadata snapshot that was half taken or
    half released (src/thinmeta/torn_hold.h), which the daemon's start mends."""
    lost_blocks = "--ignore-non-fatal-errors"
    with open(device, "r+b") as metadata:
        found = metadata.read(4096)

        def put_superblock(block: bytes) -> None:
            metadata.seek(0)
            metadata.write(block)
            metadata.flush()
            os.fsync(metadata.fileno())

        try:
            thin_check(device, lost_blocks)
        except AssertionError as failure:
            superblock = bytearray(found)
            # Two roots and the snapshot itself, each counted once less than it should be.
            missing = re.findall(r"differ for block [0-9]+, expected ([0-9]+), but got ([0-9]+)\n", str(failure))
            if superblock[56:64] == bytes(8) or len(missing) != 3 or any(int(a) != int(b) + 1 for a, b in missing):
                raise
            superblock[56:64] = bytes(8)
            put_superblock(seal_superblock(superblock))
            try:
                thin_check(device, lost_blocks)
            finally:
                put_superblock(found)
            print("a metadata snapshot was half taken when the power was cut", flush=True)


def check_after_a_start_after_a_cut(device: str) -> None:
    """Sound metadata, but for data blocks that are lost, for good: the kernel may have committed that one is taken, and not yet what
    it was taken for. (Debian's thin_check does not look at those.)"""
    run("thin_check", device)
    run("convoy-pdata_tools", "thin_check", "--ignore-non-fatal-errors", device)


class PoolTest(unittest.TestCase):
    """A fresh pool and a daemon for each test; after it, nothing may be left over and the metadata must be sound."""

    options: tuple[str, ...] = ()
    pool: dict[str, str] = {}
    loops: tuple[str, ...] = ()  # files behind loop devices, which are there after it, too
    disks: tuple[str, ...] = ()  # dm devices, likewise

    def setUp(self) -> None:
        wipe(DATA, META)
        remove_tree(ROOT)
        LOG.unlink(missing_ok=True)
        self.destination = Path("/tmp/backups")
        remove_tree(self.destination)
        self.destination.mkdir()
        self.url = f"vfs://{self.destination}/"
        self.addCleanup(self.show_log_of_failure)
        self.daemon = Daemon(*self.options, pool=pool_options(**self.pool))
        self.addCleanup(self.tear_pool_down)

    def show_log_of_failure(self) -> None:
        outcome = self._outcome  # type: ignore[attr-defined]
        failed = any(error for _, error in getattr(outcome.result, "failures", []) + getattr(outcome.result, "errors", []))
        if failed and LOG.exists():
            Path(os.environ["VM_OUT"], f"{self.id()}.log").write_text(LOG.read_text())

    def tear_pool_down(self) -> None:
        if not self.daemon.process:
            self.daemon.start()
        for name, volume in convoy_json("list").items():
            if volume["MountPoint"]:
                convoy("umount", name)
            convoy("delete", name)
        info = convoy_json("info")["devicemapper"]
        # The label takes one block.
        self.assertEqual(info["ThinpoolUsed"], info["ThinpoolBlockSize"], "thin devices are left over")
        pool = self.pool.get("thinpoolname", "convoy-pool")
        held_root = run("dmsetup", "status", pool).stdout.split()[6]
        self.assertEqual(held_root, "-", "a metadata snapshot is left held")
        devices = dm_devices()
        self.assertEqual(self.daemon.stop(), 0)
        self.assertEqual(devices, sorted([pool, *self.disks]), "dm devices are left over")
        self.assertEqual(mounts(), [])
        self.assertFalse(SOCKET.exists(), "the socket is left over")
        leftovers = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*")}
        self.assertLessEqual(leftovers, {"catalog.db", "catalog.db.copy", "lock", "guard.lock", "devicemapper", "devicemapper/mounts"})
        self.assertEqual({path.name for path in Path("/dev/mapper").iterdir()}, {"control", *devices})
        shut_down_pool(self.disks)
        self.assertEqual(loop_devices(), sorted(self.loops))
        thin_check(self.pool.get("meta", META))
