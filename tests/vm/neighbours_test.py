"""Bad neighbours of the daemon: a clock that is set back, no file descriptors, little memory, requests that are none, and a hundred
clients that do opposite things to a few volumes."""
# budget: 600
# long budget: 900
# machine: --memory 3G

import contextlib
import http.client
import json
import os
import re
import random
import resource
import socket
import subprocess
import threading
import time
import unittest
import urllib.parse
from collections import Counter
from pathlib import Path

from promises import check_nothing_is_left
from support import (
    MIB, SOCKET, DockerCall, PoolTest, compare_devices, convoy, convoy_error, convoy_json, docker, run, snapshot_device, wait_until,
)

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))
CLIENTS, SECONDS = 100, 60 if LONG else 15
SEED = int(os.environ.get("CONVOY_SEED") or random.randrange(1000))
# What somebody may be told who is not alone.
EXPECTED = {"", "busy", "already exists", "not found", "cancelled", "unavailable"}
EXPECTED_BY_DOCKER = r"^$|no volume '|is being|is mounted"


class Neighbours(PoolTest):
    def make(self) -> Path:
        convoy("create", "db", "--size", "64M")
        file = Path(convoy("mount", "db"), "file")
        file.write_bytes(os.urandom(4 * MIB))
        convoy("snapshot", "create", "db", "--name", "s1")
        return file

    def check_backup(self, url: str, snapshot: str) -> None:
        convoy("create", "copy", "--backup", url)
        with snapshot_device(snapshot) as device:
            compare_devices(device, "/dev/mapper/copy")
        convoy("delete", "copy")

    def test_a_clock_that_is_set_back(self) -> None:
        file = self.make()
        now = time.time()
        self.addCleanup(lambda: time.clock_settime(time.CLOCK_REALTIME, now + 600))
        first = convoy("backup", "create", "s1", "--dest", self.url)
        for number, hours in enumerate((2, 24 * 400, -24 * 30)):
            time.clock_settime(time.CLOCK_REALTIME, now - hours * 3600)
            file.write_bytes(os.urandom(MIB))
            name = f"back{number}"
            convoy("snapshot", "create", "db", "--name", name)
            url = convoy("backup", "create", name, "--dest", self.url)
            self.check_backup(url, name)
            self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
            convoy("snapshot", "delete", name)
            convoy("backup", "delete", url)
        self.check_backup(first, "s1")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(list(convoy_json("inspect", "db")["Snapshots"]), ["s1"])

    # --- Requests ---

    def raw(self, data: bytes, wait: float = 10) -> bytes:
        """What comes back for these bytes."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(wait)
        connection.connect(str(SOCKET))
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(data)
            while part := connection.recv(65536):
                answer += part
        connection.close()
        return answer

    def post(self, body: bytes, path: str = "/v1/volume") -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        return self.raw(head.encode() + body)

    def test_requests_that_are_none(self) -> None:
        nested = b'{"Name":' + b"[" * 500000 + b"]" * 500000 + b"}"
        for body in (b"", b"[", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"Name":"\xff"}', b'{"Name":5}', b'{"Name":{}}', nested):
            for path in ("/v1/volume", "/v1/snapshot", "/VolumeDriver.Create", "/VolumeDriver.Mount"):
                if not body and path == "/v1/volume":
                    continue  # a volume of the default size, with a name that is made up
                answer = self.post(body, path)
                self.assertRegex(answer[:15], rb"HTTP/1.1 (400|404|200|409)", (body[:20], path))
                self.assertIn(b'"Err', answer)
        self.assertIn(b" 413 ", self.post(b'{"Name":"' + b"x" * (2 << 20) + b'"}')[:20])
        for start in (
            b"",
            b"\0" * 100,
            b"GET",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/volume HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"GET /v1/volume?name=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v1/volume?name=%00 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n",
            b"X: y\r\n" * 50000,
        ):
            self.raw(start, 0.5)
        # Those that come byte by byte, or never to an end, keep nobody else from an answer.
        slow = [socket.socket(socket.AF_UNIX) for _ in range(40)]
        for connection in slow:
            connection.connect(str(SOCKET))
            connection.sendall(b"POST /v1/volume HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        begin = time.monotonic()
        self.assertEqual(convoy_json("list"), {})
        self.assertLess(time.monotonic() - begin, 10)
        for connection in slow:
            connection.close()
        self.assertEqual(convoy_json("list"), {})

    # --- Clients ---

    def ask(self, method: str, path: str, **fields: object) -> str:
        """The kind of the error, or nothing."""
        connection = DockerCall()
        try:
            connection.request(method, path, json.dumps(fields) if fields else None)
            lines = connection.getresponse().read().decode().strip().splitlines()
        except (http.client.HTTPException, OSError) as error:
            return f"no answer: {error!r}"
        finally:
            connection.close()
        last = json.loads(lines[-1]) if lines else {}
        if isinstance(last, dict) and "Kind" in last and last["Kind"] not in EXPECTED:
            return f"{last['Kind']}: {last['Error']}"
        return last.get("Kind", "") if isinstance(last, dict) else ""

    @staticmethod
    def docker(call: str, volume: str, container: str) -> str:
        error = docker(f"VolumeDriver.{call}", Name=volume, ID=container).get("Err", "")
        return "" if re.search(EXPECTED_BY_DOCKER, error) else f"docker {call}: {error}"

    def act(self, dice: random.Random) -> str:
        volume, snapshot = f"v{dice.randrange(5)}", f"s{dice.randrange(10)}"
        call = dice.randrange(14)
        if call == 0:
            return self.ask("POST", "/v1/volume", Name=volume, Size="16M")
        if call == 1:
            return self.ask("DELETE", f"/v1/volume?name={volume}")
        if call in (2, 3):
            return self.ask("POST", "/v1/snapshot", Volume=volume, Name=snapshot)
        if call == 4:
            return self.ask("DELETE", f"/v1/snapshot?name={snapshot}")
        if call == 5:
            return self.ask("POST", "/v1/volume/mount", Name=volume)
        if call == 6:
            return self.ask("POST", "/v1/volume/umount", Name=volume, Force=bool(dice.randrange(2)))
        if call == 7:
            return self.docker("Mount", volume, f"c{dice.randrange(3)}")
        if call == 8:
            return self.docker("Unmount", volume, f"c{dice.randrange(3)}")
        if call == 9:
            return self.ask("POST", "/v1/backup", Snapshot=snapshot, Destination=self.url)
        if call == 10:
            url = self.some_backup(dice)
            return self.ask("POST", "/v1/volume", Name=volume, Backup=url) if url else ""
        if call == 11:
            url = self.some_backup(dice)
            return self.ask("DELETE", f"/v1/backup?url={urllib.parse.quote(url, safe='')}") if url else ""
        if call == 12:
            return self.ask("GET", "/v1/volumes")
        return self.ask("GET", f"/v1/volume?name={volume}")

    def some_backup(self, dice: random.Random) -> str:
        connection = DockerCall()
        connection.request("GET", f"/v1/backups?destination={urllib.parse.quote(self.url, safe='')}")
        answer = json.loads(connection.getresponse().read())
        connection.close()
        urls = sorted(answer.get("Backups", {}))
        return dice.choice(urls) if urls else ""

    def test_a_hundred_clients(self) -> None:
        end = time.monotonic() + SECONDS
        outcomes: Counter = Counter()
        lock = threading.Lock()

        def live(number: int) -> None:
            dice = random.Random(f"{SEED} {number}")
            while time.monotonic() < end:
                outcome = self.act(dice)
                with lock:
                    outcomes[outcome] += 1

        clients = [threading.Thread(target=live, args=(number,)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(timeout=300)
            self.assertFalse(client.is_alive(), "a client hangs")
        print(f"CONVOY_SEED={SEED}: {dict(outcomes)}", flush=True)
        surprises = {outcome for outcome in outcomes if outcome not in EXPECTED and not self.is_fair(outcome)}
        self.assertEqual(surprises, set())
        for volume, described in convoy_json("list").items():
            if described["MountPoint"]:
                convoy("umount", "--force", volume)
        wait_until("the end of all jobs", lambda: convoy_json("jobs") == {})
        self.daemon.stop()
        self.daemon.start()
        check_nothing_is_left(self)
        if convoy_json("backup", "list", self.url):
            self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])

    @staticmethod
    def is_fair(outcome: str) -> bool:
        """The same name for a volume of another size, or a destination that holds nothing yet."""
        return outcome.startswith("invalid argument")


class NothingLeft(Neighbours):
    """In the long form only: what is refused for want of descriptors or memory, and what is done, is another thing in each run."""

    def pid(self) -> int:
        assert self.daemon.process
        return self.daemon.process.pid

    @contextlib.contextmanager
    def limit(self, kind: int, value: int):
        before = resource.prlimit(self.pid(), kind)
        resource.prlimit(self.pid(), kind, (value, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self.pid(), kind, before)

    def all_that_takes_descriptors(self) -> tuple:
        return (
            ("create", "new", "--size", "32M"),
            ("snapshot", "create", "db", "--name", "s2"),
            ("backup", "create", "s1", "--dest", self.url),
            ("umount", "db"),
            ("mount", "db"),
            ("trim", "db"),
            ("delete", "db"),
            ("backup", "list", self.url),
            ("info",),
        )

    def try_all(self) -> Counter:
        """Each is done, or refused in a sentence. Tells how often which."""
        outcomes: Counter = Counter()
        for words in self.all_that_takes_descriptors():
            if words[0] == "delete":
                self.assertIn("", convoy_error(*words))
                continue
            result = run("convoy", "--socket", SOCKET, *words, check=False, timeout=60)
            outcomes["done" if result.returncode == 0 else "refused"] += 1
            self.assertTrue(result.returncode == 0 or result.stderr, words)
        self.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)
        return outcomes

    def check_that_all_is_well(self, file: Path, content: bytes) -> None:
        convoy_json("list")
        for volume in convoy_json("list"):
            if volume != "db":
                convoy("delete", volume)
        if not convoy_json("inspect", "db")["MountPoint"]:
            convoy("mount", "db")
        self.assertEqual(file.read_bytes(), content)
        self.daemon.stop()
        self.daemon.start()
        check_nothing_is_left(self)
        url = convoy("backup", "create", "s1", "--dest", self.url)
        self.check_backup(url, "s1")

    def test_no_file_descriptors(self) -> None:
        file = self.make()
        content = file.read_bytes()
        outcomes: Counter = Counter()
        for left in (1, 2, 3, 5, 8):
            used = len(os.listdir(f"/proc/{self.pid()}/fd"))
            with self.limit(resource.RLIMIT_NOFILE, used + left):
                outcomes += self.try_all()
        print(outcomes, flush=True)
        self.assertTrue(outcomes["refused"])
        self.check_that_all_is_well(file, content)

    def test_little_memory(self) -> None:
        file = self.make()
        content = file.read_bytes()
        outcomes: Counter = Counter()
        for more in (1, 4, 16, 64):
            size = int(Path(f"/proc/{self.pid()}/statm").read_text().split()[0]) * resource.getpagesize()
            with self.limit(resource.RLIMIT_AS, size + more * MIB):
                outcomes += self.try_all()
        print(outcomes, flush=True)
        self.assertTrue(outcomes["refused"])
        self.check_that_all_is_well(file, content)


class SilentClients(PoolTest):
    def test_more_than_are_served_at_once(self) -> None:
        silent = [socket.socket(socket.AF_UNIX) for _ in range(600)]
        for connection in silent:
            self.addCleanup(connection.close)
            connection.connect(str(SOCKET))
            connection.sendall(b"POST /v1/volume HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        self.assertIn("did not finish its answer", convoy_error("list"))
        time.sleep(62)  # when they have said nothing for a minute
        self.assertEqual(convoy("list"), "{}")


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(Neighbours))
    if LONG:
        suite.addTests([NothingLeft("test_no_file_descriptors"), NothingLeft("test_little_memory")])
        suite.addTests(loader.loadTestsFromTestCase(SilentClients))
    return suite


if __name__ == "__main__":
    unittest.main(verbosity=2)
