"""Beside udev, as on most hosts: device nodes are its symlinks, there when a command returns, and nothing of it is left."""
# budget: 1000
# long budget: 1400

import os
import stat
import subprocess
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

from old_convoy import OldConvoy, uuid_of
from support import LOG as DAEMON_LOG
from support import (
    DATA, META, MIB, ROOT, SOCKET, Daemon, PoolTest, allow_kernel, convoy, convoy_json, dm_devices, file_digests, mounts, remove_tree,
    run, shut_down_pool, wait_until, wipe,
)

MAPPER = Path("/dev/mapper")
BY_ID = Path("/dev/disk/by-id")
BY_UUID = Path("/dev/disk/by-uuid")
LOG = Path(os.environ["VM_OUT"], "udevd.log")
LONG = bool(os.environ.get("CONVOY_TEST_LONG"))


def settle() -> None:
    """Waits until udev has nothing left to do."""
    run("udevadm", "settle", "--timeout=60")


def cookies() -> list[str]:
    """The semaphores by which libdevmapper waits for udev."""
    return run("dmsetup", "udevcookies").stdout.splitlines()[1:]


def nodes() -> dict[str, str]:
    """What is under /dev/mapper: where a symlink points to, or "node"."""
    paths = [path for path in MAPPER.iterdir() if path.name != "control"]
    return {path.name: os.readlink(path) if path.is_symlink() else "node" for path in paths}


def symlinks(*devices: str) -> dict[str, str]:
    """What is to be there."""
    found = run("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "name,blkdevname").stdout
    kernel_names = dict(line.split() for line in found.splitlines())
    return {name: f"../{kernel_names[name]}" for name in devices}


def known_to_udev(device: Path) -> set[str]:
    """Properties, and each link by itself, for their order changes."""
    return set(run("udevadm", "info", "--query=property", device).stdout.replace("DEVLINKS=", "").split())


def start(*words: str) -> subprocess.Popen:
    command = ["convoy", "--socket", str(SOCKET), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


class WithoutUdev(PoolTest):
    """A host without udev, of which nobody has told the daemon."""

    def setUp(self) -> None:
        with mock.patch.dict(os.environ):
            # dmsetup, unlike the daemon, needs it then.
            del os.environ["DM_DISABLE_UDEV"]
            super().setUp()

    def test_nodes_are_made_and_removed(self) -> None:
        convoy("create", "db", "--size", "64M")
        self.assertEqual(nodes(), {"convoy-pool": "node", "db": "node"})
        self.assertTrue(stat.S_ISBLK((MAPPER / "db").stat().st_mode))
        convoy("mount", "db")
        convoy("umount", "db")
        convoy("delete", "db")
        self.assertEqual(nodes(), {"convoy-pool": "node"})


class BesideUdev(unittest.TestCase):
    udevd: subprocess.Popen

    @classmethod
    def setUpClass(cls) -> None:
        os.environ.pop("DM_DISABLE_UDEV", None)
        with LOG.open("w") as log:
            cls.udevd = subprocess.Popen(["/lib/systemd/systemd-udevd"], stdout=log, stderr=log)
        wait_until("udev's start", lambda: run("udevadm", "control", "--ping", check=False).returncode == 0)
        run("udevadm", "trigger", "--action=add", "--subsystem-match=block")
        settle()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.udevd.terminate()
        cls.udevd.wait(timeout=30)
        # "Invalid sender": a message whose sender's credentials the kernel did not tell, seen once in a long time.
        harmless = ("Starting ", "Using ", "Invalid sender uid ")
        late = "dmsetup udevcomplete" if LONG else "\0"  # after the daemon has waited for long enough
        complaints = [line for line in LOG.read_text().splitlines() if not line.startswith(harmless) and late not in line]
        if complaints:
            raise AssertionError("udev complains:\n" + "\n".join(complaints))


class WithUdev(BesideUdev, PoolTest):
    def tear_pool_down(self) -> None:
        run("udevadm", "control", "--start-exec-queue")
        super().tear_pool_down()
        self.assertEqual(cookies(), [], "cookies are left over")
        self.assertEqual(nodes(), {}, "nodes are left over")
        settle()
        self.assertEqual([path.name for path in BY_ID.glob("dm-*")], [], "udev's links are left over")

    def check_nodes(self, *volumes: str) -> None:
        """At this moment, without waiting for udev."""
        self.assertEqual(nodes(), symlinks("convoy-pool", *volumes))

    def test_the_whole_life_of_a_volume(self) -> None:
        self.check_nodes()
        for filesystem in ("ext4", "xfs"):
            convoy("create", "db", "--size", "304M", "--fs", filesystem)
            self.check_nodes("db")
            file = Path(convoy("mount", "db"), "file")
            file.write_bytes(os.urandom(8 * MIB))
            files = file_digests(file.parent)
            convoy("snapshot", "create", "db", "--name", "s1")
            file.write_bytes(os.urandom(8 * MIB))
            convoy("snapshot", "create", "db", "--name", "s2")
            first = convoy("backup", "create", "s1", "--dest", self.url)
            second = convoy("backup", "create", "s2", "--dest", self.url)
            self.check_nodes("db")
            convoy("umount", "db")
            convoy("create", "copy", "--backup", first)
            self.check_nodes("copy", "db")
            self.assertEqual(file_digests(convoy("mount", "copy")), files)
            convoy("backup", "delete", first)
            convoy("backup", "delete", second)
            convoy("snapshot", "delete", "s1")
            convoy("umount", "copy")
            convoy("delete", "copy")
            self.check_nodes("db")
            convoy("delete", "db")
            self.check_nodes()
        self.assertEqual(cookies(), [])

    def test_nodes_are_there_again_when_the_daemon_has_started(self) -> None:
        for name in ("a", "b", "c"):
            convoy("create", name, "--size", "64M")
        mountpoint = convoy("mount", "b")
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool()
        self.assertEqual(nodes(), {})
        self.daemon.start()
        self.check_nodes("a", "b", "c")
        self.assertEqual(mounts(), [mountpoint])

    def test_many_at_once(self) -> None:
        names = [f"v{number}" for number in range(8)]
        for words, left in ((["create", "--size", "64M"], names), (["delete"], [])):
            processes = [start(*words, name) for name in names]
            for process in processes:
                output, _ = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 0, output)
            self.check_nodes(*left)
            self.assertEqual(cookies(), [])

    def test_a_snapshot_that_is_read_has_a_node_until_the_end(self) -> None:
        convoy("create", "db", "--size", "128M")
        Path(convoy("mount", "db"), "file").write_bytes(os.urandom(64 * MIB))
        convoy("snapshot", "create", "db", "--name", "s1")
        work = f"convoy-pool-{convoy_json('snapshot', 'inspect', 's1')['DriverInfo']['UUID']}"
        backup = start("backup", "create", "s1", "--dest", self.url)
        wait_until("chunks are stored", lambda: list(self.destination.rglob("*.data")))
        self.check_nodes("db", work)
        output, _ = backup.communicate(timeout=60)
        self.assertEqual(backup.returncode, 0, output)
        self.check_nodes("db")

    def test_a_scan_by_udev_hinders_neither_umount_nor_delete(self) -> None:
        for _ in range(20):
            convoy("create", "db", "--size", "64M")
            # Closing a device after a write makes udev scan it; so do mkfs and an unmount.
            convoy("mount", "db")
            convoy("umount", "db")
            (MAPPER / "db").open("r+b").close()
            convoy("delete", "db")
            self.check_nodes()

    def test_one_who_has_a_device_open_for_a_moment_is_waited_for(self) -> None:
        convoy("create", "db", "--size", "64M")
        device = (MAPPER / "db").open("rb")
        closing = threading.Timer(2, device.close)
        closing.start()
        convoy("delete", "db")
        closing.join()
        self.check_nodes()

    def test_snapshots_leave_what_udev_knows_as_it_is(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = Path(convoy("mount", "db"))
        settle()
        device = (MAPPER / "db").resolve()
        before = known_to_udev(device)
        self.assertLessEqual({"DM_NAME=db", "DM_SUSPENDED=0", "DM_UDEV_PRIMARY_SOURCE_FLAG=1", "ID_FS_TYPE=ext4"}, before)
        # The suspend guard's ioctls carry no cookie.
        for number in range(10):
            (mountpoint / "file").write_text(str(number))
            convoy("snapshot", "create", "db", "--name", f"s{number}")
        self.check_nodes("db")
        settle()
        self.assertEqual(known_to_udev(device), before)
        uuid = run("blkid", "-o", "value", "-s", "UUID", device).stdout.strip()
        self.assertEqual((BY_UUID / uuid).resolve(), device)

    def test_a_daemon_killed_while_it_waits_leaves_a_cookie_that_holds_up_nobody(self) -> None:
        convoy("create", "db", "--size", "64M")
        mountpoint = convoy("mount", "db")
        settle()
        run("udevadm", "control", "--stop-exec-queue")
        create = start("create", "new", "--size", "64M")
        wait_until("the daemon waits for udev", lambda: cookies() and "new" in dm_devices())
        self.daemon.kill()
        create.communicate(timeout=60)
        run("udevadm", "control", "--start-exec-queue")
        settle()
        self.assertEqual(len(cookies()), 1)
        self.daemon.start()
        self.check_nodes("db")
        self.assertEqual(mounts(), [mountpoint])
        convoy("create", "new", "--size", "64M")
        self.check_nodes("db", "new")
        # Nobody but an administrator can tell that it is nobody's.
        self.assertEqual(len(cookies()), 1)
        run("dmsetup", "udevcomplete_all", "-y")
        self.assertEqual(cookies(), [])

    def check_that_udev_is_waited_for_no_longer_than_it_works(self) -> None:
        run("udevadm", "control", "--stop-exec-queue")
        result = run("convoy", "--socket", SOCKET, "create", "db", "--size", "64M", check=False, timeout=900)
        self.assertEqual(result.returncode, 1)
        self.assertIn("udev does not end its work on db", DAEMON_LOG.read_text())
        self.assertEqual(cookies(), [])
        self.assertEqual(convoy("list"), "{}")
        self.assertEqual(dm_devices(), ["convoy-pool"])
        run("udevadm", "control", "--start-exec-queue")
        settle()
        convoy("create", "db", "--size", "64M")
        self.check_nodes("db")
        convoy("delete", "db")

    if LONG:  # more than three minutes
        test_udev_is_waited_for_no_longer_than_it_works = check_that_udev_is_waited_for_no_longer_than_it_works

    def test_a_daemon_killed_at_any_time_starts_again(self) -> None:
        for number in range(6):
            names = [f"{name}{number}" for name in "abc"]
            creates = [start("create", name, "--size", "64M") for name in names]
            time.sleep(0.3 + 0.2 * number)
            self.daemon.kill()
            for create in creates:
                create.communicate(timeout=60)
            self.daemon.start()
            self.check_nodes(*convoy_json("list"))
        settle()
        run("dmsetup", "udevcomplete_all", "-y")


class Takeover(BesideUdev):
    """What Convoy had activated is given UUIDs while it is in use."""

    def test_udev_knows_the_devices_by_their_new_uuids(self) -> None:
        # The pool as Convoy made it discards, and has a low water mark.
        allow_kernel("Disabling discard passdown|reached low water mark for data device")
        wipe(DATA, META)
        remove_tree(ROOT)
        old = OldConvoy()
        self.addCleanup(shut_down_pool)
        daemon = Daemon(pool=[])
        self.addCleanup(lambda: daemon.process and daemon.stop())
        self.assertEqual(nodes(), symlinks("convoy-pool", "app", "db", "logs"))
        self.assertEqual(cookies(), [])
        settle()
        for name in ("app", "db", "logs"):
            self.assertIn(f"DM_UUID={uuid_of(name)}", known_to_udev((MAPPER / name).resolve()))
            self.assertTrue(uuid_of(name).startswith("CONVOY-"))
        for name, files in old.files.items():
            self.assertEqual(file_digests(old.mountpoints[name]), files)
        convoy("umount", "db")
        convoy("delete", "db", "app")
        self.assertEqual(nodes(), symlinks("convoy-pool", "logs"))
        self.assertEqual(cookies(), [])
        daemon.stop()


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (WithoutUdev, WithUdev, Takeover))


if __name__ == "__main__":
    unittest.main(verbosity=2)
