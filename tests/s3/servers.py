"""Servers of S3 for tests."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing"}


@contextlib.contextmanager
def swift(directory: Path) -> Iterator[int]:
    """OpenStack Swift, which keeps what it is given under `directory`; gives its port."""
    (directory / "port").unlink(missing_ok=True)
    with (directory / "log").open("a") as log:
        # The system's Python, which has Debian's modules.
        process = subprocess.Popen(
            ["/usr/bin/python3", HERE / "swift_server.py", directory], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while not (directory / "port").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Swift did not start:\n{(directory / 'log').read_text()[-3000:]}")
            time.sleep(0.05)
        yield int((directory / "port").read_text())
    finally:
        process.kill()
        process.communicate()


CEPH_SETTINGS = """
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
keyring = {directory}/keyring
run dir = {directory}
admin socket =
pid file =
log file = {directory}/log
mon cluster log file = {directory}/log
crash dir = {directory}
# One disk is the whole cluster.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
[mon]
mon data = {directory}/mon
mon data avail crit = 0
[osd]
osd data = {directory}/osd
osd objectstore = bluestore
bluestore block size = 10737418240
osd memory target = 939524096
osd op num shards = 2
osd op num threads per shard = 1
[client.rgw]
rgw data = {directory}/rgw
# Without tcp_nodelay each small answer waits for 40 ms.
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw thread pool size = 32
rgw rados pool pg num min = 1
rgw run sync thread = false
rgw dynamic resharding = false
rgw override bucket index max shards = 1
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def ceph(parent: Path) -> Iterator[int]:
    """
    Ceph: a monitor, a disk in a file, and the gateway of S3; gives the gateway's port. Its directory will be in `parent`, which has a
    short path, since that is in the names of sockets, and is not in memory.
    """
    with tempfile.TemporaryDirectory(prefix="ceph-", dir=parent) as name, contextlib.ExitStack() as stack:
        directory, fsid, port, mon_port = Path(name), str(uuid.uuid4()), free_port(), free_port()
        for part in ("mon", "osd", "rgw"):
            (directory / part).mkdir()
        settings = directory / "ceph.conf"
        settings.write_text(CEPH_SETTINGS.format(directory=name, fsid=fsid, port=port, mon_port=mon_port))
        log = stack.enter_context((directory / "output").open("w"))

        def run(program: str, *words: str | Path) -> None:
            result = subprocess.run([program, *words], stdout=log, stderr=log, timeout=120, check=False)
            if result.returncode != 0:
                raise AssertionError(f"{program} ended with {result.returncode}:\n{(directory / 'output').read_text()[-3000:]}")

        def start(program: str, *words: str) -> None:
            process = subprocess.Popen([program, "-c", settings, "-f", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)

        keyring = directory / "keyring"
        run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for user, rights in {"client.admin": "allow *", "osd.0": "allow profile osd", "client.rgw": "allow *"}.items():
            run("ceph-authtool", keyring, "--gen-key", "-n", user, "--cap", "mon", rights, "--cap", "osd", "allow *")
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{mon_port}]", directory / "monmap")
        run("ceph-mon", "-c", settings, "--mkfs", "-i", "a", "--monmap", directory / "monmap", "--keyring", keyring)
        start("ceph-mon", "-i", "a")
        disk = str(uuid.uuid4())
        run("ceph", "-c", settings, "--connect-timeout", "60", "osd", "new", disk)
        run("ceph-osd", "-c", settings, "-i", "0", "--mkfs", "--osd-uuid", disk)
        start("ceph-osd", "-i", "0")
        run(
            "radosgw-admin", "-c", settings, "-n", "client.rgw", "user", "create", "--uid=test", "--display-name=test",
            f"--access-key={KEYS['AWS_ACCESS_KEY_ID']}", f"--secret-key={KEYS['AWS_SECRET_ACCESS_KEY']}",
        )  # fmt: skip
        start("radosgw", "-n", "client.rgw")
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                break
            if time.monotonic() > deadline:
                raise AssertionError(f"Ceph did not start:\n{(directory / 'output').read_text()[-3000:]}")
            time.sleep(0.1)
        yield port


def s3cmd(port: int, *words: str | Path, check: bool = True) -> str:
    """A client of somebody else's, with the same keys."""
    host = f"127.0.0.1:{port}"
    result = subprocess.run(
        [
            "s3cmd", "--config=/dev/null", f"--access_key={KEYS['AWS_ACCESS_KEY_ID']}",
            f"--secret_key={KEYS['AWS_SECRET_ACCESS_KEY']}", f"--host={host}", f"--host-bucket={host}", "--no-ssl",
            "--region=us-east-1", *map(str, words),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if check and result.returncode != 0:
        raise AssertionError(f"s3cmd {words} ended with {result.returncode}: {result.stderr}")
    return result.stdout


def environment(port: int) -> dict[str, str]:
    """What a client of ours needs to reach it, and nothing that the caller has for AWS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return inherited | KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
