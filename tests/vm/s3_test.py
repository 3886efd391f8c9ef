"""The life of a backup in S3, on a real server (OpenStack Swift): made, listed, verified, read by others, restored elsewhere, deleted; also
while the server fails now and then, and while it is away."""
# budget: 600
# machine: --memory 3G --disk s3=4G --disk data2=4G --disk meta2=64M

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from support import (
    MIB, ROOT, SOCKET, TREE, Daemon, PoolTest, convoy, convoy_error, convoy_json, device_digest, docker, file_digest, pool_options, run,
    snapshot_device, thin_check, wait_until, wipe,
)

sys.path.append(str(TREE / "tests/s3"))
import second_reader  # noqa: E402
from fault_proxy import FaultProxy  # noqa: E402
from servers import KEYS, environment, s3cmd, swift  # noqa: E402

DATA2, META2 = os.environ.get("DISK_DATA2", ""), os.environ.get("DISK_META2", "")
ROOT2, SOCKET2 = Path("/var/lib/convoy2"), Path("/run/convoy2.sock")
BUCKET = "s3://backups"
CONVOY = ["convoy", "--socket", SOCKET]


class Life:
    """For a PoolTest that gives `server`, which is called with a directory that it may use."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = Path("/mnt/s3")
        cls.directory.mkdir()
        run("mkfs.ext4", "-q", os.environ["DISK_S3"])
        run("mount", os.environ["DISK_S3"], cls.directory)
        cls.port = cls.enterClassContext(cls.server(cls.directory))
        os.environ.update(environment(cls.port))
        s3cmd(cls.port, "mb", BUCKET)

    def setUp(self) -> None:
        super().setUp()
        # Another one's name begins with it, and its objects are not ours.
        self.url = f"{BUCKET}/{self._testMethodName[-10:]}/a b/"
        s3cmd(self.port, "put", "/etc/hostname", f"{self.url[:-1]}x/convoy/volumes/other")
        convoy("create", "db", "--size", "256M")
        self.mountpoint = Path(convoy("mount", "db"))
        self.addCleanup(run, "convoy", "umount", "db", check=False)
        (self.mountpoint / "file").write_bytes(os.urandom(48 * MIB))
        self.written = 0

    def snapshot(self) -> str:
        os.sync()
        self.written += 1
        convoy("snapshot", "create", "db", "--name", f"s{self.written}")
        return f"s{self.written}"

    def back_up(self) -> str:
        return convoy("backup", "create", self.snapshot(), "--dest", self.url)

    def overwrite(self, begin: int, length: int) -> None:
        with (self.mountpoint / "file").open("r+b") as content:
            content.seek(begin)
            content.write(os.urandom(length))

    def keys(self) -> list[str]:
        lines = s3cmd(self.port, "ls", "--recursive", self.url).splitlines()
        return [line.split(self.url)[1] for line in lines]

    def digest(self, snapshot: str) -> str:
        with snapshot_device(snapshot) as device:
            return device_digest(device)

    def check_restore(self, url: str, snapshot: str) -> None:
        convoy("create", "again", "--backup", url)
        self.assertEqual(device_digest("/dev/mapper/again"), self.digest(snapshot))
        convoy("delete", "again")

    def test_whole_life(self) -> None:
        self.assertEqual(convoy("backup", "list", self.url), "{}")
        first = self.back_up()
        self.overwrite(0, 40 * MIB)
        second = self.back_up()
        unchanged = self.back_up()
        self.assertTrue(first.startswith(self.url.replace(" ", "%20") + "?backup="), first)
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [first, second, unchanged])
        self.assertEqual(convoy_json("backup", "inspect", second)["VolumeName"], "db")
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        self.assertEqual(convoy_json("backup", "verify", "--quick", second)["Damaged"], [])
        self.check_restore(second, "s2")

        # What another client fetches is a store like any other.
        with tempfile.TemporaryDirectory() as directory, tempfile.NamedTemporaryFile() as output:
            s3cmd(self.port, "get", "--recursive", self.url, directory + "/")
            backup, lineage = (first.split(f"{name}=")[1][:36] for name in ("backup", "volume"))
            second_reader.restore(Path(directory), lineage, backup, Path(output.name))
            self.assertEqual(file_digest(output.name), self.digest("s1"))

        convoy("backup", "delete", first)
        convoy("backup", "delete", unchanged)
        freed = json.loads(run("convoy", "backup", "gc", self.url).stdout)
        self.assertTrue(freed["Packs"])
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        self.check_restore(second, "s2")
        convoy("backup", "delete", second)
        self.assertEqual(self.keys(), ["convoy/store.json"])
        self.assertIn("volumes/other", s3cmd(self.port, "ls", "--recursive", f"{self.url[:-1]}x/"))

    def test_on_another_host(self) -> None:
        first = self.back_up()
        wipe(DATA2, META2)
        os.environ.pop("AWS_ENDPOINT_URL")
        self.addCleanup(os.environ.update, environment(self.port))
        settings = Path("/tmp/s3.conf")
        settings.write_text(f"[{BUCKET}/]\nendpoint = http://127.0.0.1:{self.port}\nconnections = 3\nstorage-class = STANDARD\n")
        other = Daemon(
            "--s3-settings", str(settings), pool=pool_options(DATA2, META2, thinpoolname="second-pool"), root=ROOT2, socket=SOCKET2
        )
        convoy("create", "copy", "--backup", first, socket=SOCKET2)
        self.assertEqual(device_digest("/dev/mapper/copy"), self.digest("s1"))
        convoy("snapshot", "create", "copy", "--name", "c1", socket=SOCKET2)
        result = run("convoy", "-s", SOCKET2, "backup", "create", "c1", "--dest", self.url)
        self.assertRegex(result.stderr, r", [\d.]+ (B|KiB) stored")
        convoy("delete", "copy", socket=SOCKET2)
        other.stop()
        run("dmsetup", "remove", "second-pool")
        thin_check(META2)


class S3(Life, PoolTest):
    server = staticmethod(swift)

    def go_by(self, proxy: FaultProxy) -> None:
        """The daemon talks to the server by way of the proxy."""
        self.addCleanup(os.environ.update, environment(self.port))
        self.addCleanup(proxy.close)
        self.daemon.stop()
        os.environ.update(environment(proxy.port))
        self.daemon.start()

    def test_a_server_that_fails_one_request_in_ten(self) -> None:
        proxy = FaultProxy(self.port, share=0.1, seed=1, stall=4)
        self.go_by(proxy)
        first = self.back_up()
        self.overwrite(8 * MIB, 3 * MIB)
        second = self.back_up()
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        self.check_restore(first, "s1")
        self.check_restore(second, "s2")
        convoy("backup", "delete", first)
        convoy("backup", "gc", self.url)
        self.check_restore(second, "s2")
        convoy("backup", "delete", second)
        self.assertEqual([key for key in self.keys() if "/packs/" in key or "/backups/" in key], [])
        self.assertGreater(sum(proxy.faults.values()), 5)
        self.daemon.stop()
        os.environ.update(environment(self.port))

    def test_a_server_that_is_killed_and_comes_back(self) -> None:
        directory = self.directory / "killed"
        directory.mkdir()
        server = swift(directory)
        proxy = FaultProxy(server.__enter__())
        self.go_by(proxy)
        s3cmd(proxy.server, "mb", BUCKET)
        snapshot = self.snapshot()
        backup = subprocess.Popen(
            ["convoy", "--socket", SOCKET, "backup", "create", snapshot, "--dest", self.url], stdout=subprocess.PIPE, text=True
        )
        before = proxy.requests
        wait_until("requests of the backup", lambda: proxy.requests > before + 4 or backup.poll() is not None)
        server.__exit__(None, None, None)
        time.sleep(3)
        server = swift(directory)
        proxy.server = server.__enter__()
        output, _ = backup.communicate(timeout=200)
        self.assertEqual(backup.returncode, 0, output)
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        self.check_restore(output.strip(), snapshot)
        server.__exit__(None, None, None)
        self.daemon.stop()
        os.environ.update(environment(self.port))

    def test_nobody_waits_for_a_server_any_longer_than_he_wants(self) -> None:
        snapshot = self.snapshot()
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
            endpoint = f"--s3-endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
            backup = [*CONVOY, "backup", endpoint, "create", snapshot, "--dest", self.url]
            for words in (backup, [*CONVOY, "backup", endpoint, "list", self.url]):
                client = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
                self.addCleanup(client.communicate)
                time.sleep(2)
                self.assertIsNone(client.poll())
                begin = time.monotonic()
                if words == backup:
                    client.send_signal(signal.SIGINT)
                else:
                    self.daemon.stop()
                output, _ = client.communicate(timeout=60)
                self.assertLess(time.monotonic() - begin, 20, output)  # the first try alone takes 30 s
                self.assertRegex(json.loads(output)["Error"], "cancelled|did not finish its answer")
        self.daemon.start()

    def test_options_and_errors(self) -> None:
        url = self.back_up()
        endpoint = f"http://127.0.0.1:{self.port}"
        self.daemon.stop()
        os.environ.pop("AWS_ENDPOINT_URL")
        self.addCleanup(os.environ.update, environment(self.port))
        self.daemon.start()
        self.assertIn("the region of the bucket 'backups' is not known", convoy_error("backup", "list", self.url))
        self.assertIn(url, convoy_json("backup", "list", "--s3-endpoint", endpoint, self.url))
        self.assertIn(url, convoy_json("backup", "--s3-endpoint", endpoint, "list", self.url))
        convoy("create", "again", "--backup", url, "--s3-endpoint", endpoint)
        convoy("restore", url, "--into", "again", "--s3-endpoint", endpoint)
        convoy("delete", "again")
        created = docker("VolumeDriver.Create", Name="again", Opts={"backup": url, "s3-endpoint": endpoint})
        self.assertEqual(created, {})
        self.assertEqual(device_digest("/dev/mapper/again"), self.digest("s1"))
        convoy("delete", "again")
        there = ["--s3-endpoint", endpoint]
        self.assertIn("there is no bucket 'absent'", convoy_error("backup", "create", "s1", "--dest", "s3://absent/", *there))
        self.assertIn("is no backup destination", convoy_error("backup", "list", "s3://UPPER/"))
        self.assertIn("no address of an S3 server", convoy_error("backup", "list", self.url, "--s3-endpoint", "127.0.0.1"))

        secret = "a-secret-that-nobody-may-see"
        for variable in KEYS:
            self.daemon.stop()
            os.environ.update({variable: secret, "AWS_ENDPOINT_URL": endpoint})
            self.daemon.start()
            error = convoy_error("backup", "create", "s1", "--dest", self.url)
            self.assertIn(variable, error)
            self.assertNotIn(secret, error)
            self.assertNotIn(secret, run("ps", "-eo", "args").stdout)
            os.environ.update(KEYS)
        self.daemon.stop()
        self.daemon.start()
        log = Path("/var/log/convoy-test.log").read_text()
        self.assertNotIn(secret, log)
        for file in ROOT.glob("catalog.db*"):
            self.assertNotIn(secret.encode(), file.read_bytes())
            self.assertNotIn(KEYS["AWS_SECRET_ACCESS_KEY"].encode(), file.read_bytes())
        self.assertNotIn(KEYS["AWS_SECRET_ACCESS_KEY"], log)


if __name__ == "__main__":
    unittest.main(verbosity=2)
