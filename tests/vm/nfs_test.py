"""A destination on NFS, with a real server, and on a disk: the life of a backup, and what happens when the server, its disk or its
space goes. A backup that can't be made fails with a sentence, nothing half made is taken for whole, and the next one works."""
# budget: 600
# machine: --memory 2G --disk store=2G

import os
import subprocess
import time
import unittest
from collections.abc import Callable
from pathlib import Path

import nfs_server
from support import (
    MIB, PoolTest, allow_kernel, convoy, convoy_error, convoy_json, device_digest, run, snapshot_device, wait_until,
)

BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
STORE = os.environ.get("DISK_STORE", "")
DEVICE = "/dev/mapper/store"
SIZE = 48 * MIB  # of what is backed up first


class Destination(PoolTest):
    """A file system on a dm device, which tests can let fail."""

    make_options: tuple[str, ...] = ()
    mount_options: tuple[str, ...] = ()
    directory = nfs_server.EXPORT  # of the file system
    url = f"vfs://{directory}/"

    def setUp(self) -> None:
        super().setUp()
        self.url = type(self).url
        self.directory.mkdir(parents=True, exist_ok=True)
        self.sectors = int(run("blockdev", "--getsz", STORE).stdout)
        run("dmsetup", "create", "store", "--table", f"0 {self.sectors} linear {STORE} 0")
        self.addCleanup(run, "dmsetup", "remove", "--retry", "store")
        run("mkfs.ext4", "-q", "-F", *self.make_options, DEVICE)
        self.addCleanup(self.unmount)
        self.mount()
        self.snapshots = 0
        convoy("create", "db", "--size", "256M")
        self.addCleanup(run, "convoy", "umount", "db", check=False)
        self.mountpoint = Path(convoy("mount", "db"))
        (self.mountpoint / "file").write_bytes(os.urandom(SIZE))

    def mount(self) -> None:
        run("mount", *self.mount_options, DEVICE, self.directory)

    def unmount(self) -> None:
        run("umount", self.directory, check=False)

    def load(self, table: str) -> None:
        """What the device is from now on, without a flush of what is in flight."""
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "store")
        run("dmsetup", "load", "store", "--table", f"0 {self.sectors} {table}")
        run("dmsetup", "resume", "store")

    def snapshot(self, changed: int = 4 * MIB) -> str:
        with (self.mountpoint / "file").open("r+b") as file:
            file.write(os.urandom(changed))
            os.fsync(file.fileno())
        self.snapshots += 1
        convoy("snapshot", "create", "db", "--name", f"s{self.snapshots}")
        return f"s{self.snapshots}"

    def back_up(self, changed: int = 4 * MIB) -> str:
        return convoy("backup", "create", self.snapshot(changed), "--dest", self.url)

    def error(self, changed: int = 4 * MIB) -> str:
        """Of a backup that can't be made."""
        return convoy_error("backup", "create", self.snapshot(changed), "--dest", self.url)

    def back_up_while(self, happens: Callable[[], None], ends: Callable[[], None] = lambda: None) -> tuple[str, str]:
        """A backup during which something happens, when its first pack is there, and ends again. Its URL, or its error."""
        snapshot = self.snapshot(SIZE)
        before = self.packs()
        command = ["convoy", "backup", "create", snapshot, "--dest", self.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as backup:
            wait_until("a pack is there", lambda: self.packs() > before)
            happens()
            # The daemon lives, and does what has nothing to do with it.
            convoy("create", "other", "--size", "16M")
            convoy("delete", "other")
            ends()
            url, error = backup.communicate(timeout=100)
        return ("", error.strip().splitlines()[-1]) if backup.returncode else (url.strip(), "")

    def packs(self) -> int:
        return sum(name.endswith(".data") for _, _, names in os.walk(self.directory) for name in names)

    def check(self, kept: list[str]) -> None:
        """All these backups are there and whole, and the next one is."""
        last = self.back_up()
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [*kept, last])
        self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
        convoy("create", "again", "--backup", last)
        with snapshot_device(f"s{self.snapshots}") as device:
            self.assertEqual(device_digest("/dev/mapper/again"), device_digest(device))
        convoy("delete", "again")


class Disk(Destination):
    # Without a journal, whose end makes the file system read-only: so that single calls fail, and others don't.
    make_options = ("-O", "^has_journal")

    def test_a_disk_that_refuses_writes_now_and_then(self) -> None:
        allow_kernel("Buffer I/O error|buffer_io_error|EXT4-fs|I/O error")
        kept = [self.back_up()]
        failed = 0
        for attempt in range(6):
            self.load(f"flakey {STORE} 0 1 1 1 error_writes")
            # It begins with a good second. However long a backup takes, one of them meets a bad one.
            time.sleep(0.3 * attempt)
            result = run("convoy", "backup", "create", self.snapshot(SIZE), "--dest", self.url, check=False)
            self.load(f"linear {STORE} 0")
            if result.returncode == 0:
                kept.append(result.stdout.strip())
            else:
                self.assertIn("Input/output error", result.stderr)
                failed += 1
        self.assertGreater(failed, 0)
        # What was refused is still in the cache, where only an unmount loses it.
        self.unmount()
        run("fsck.ext4", "-fy", DEVICE, check=False)
        self.mount()
        self.check(kept)


class DiskWithJournal(Destination):
    def test_a_disk_that_is_gone_in_the_middle(self) -> None:
        allow_kernel("Buffer I/O error|buffer_io_error|EXT4-fs|JBD2|Aborting journal|I/O error")
        kept = [self.back_up()]
        error = ""
        for _ in range(5):  # a quick backup may be complete before
            url, error = self.back_up_while(lambda: self.load("error"))
            self.unmount()
            self.load(f"linear {STORE} 0")
            self.mount()
            if error:
                break
            kept.append(url)
        self.assertRegex(error, "Input/output error|Read-only file system")
        self.check(kept)

    def test_a_file_system_that_is_read_only(self) -> None:
        kept = [self.back_up()]
        run("mount", "-o", "remount,ro", self.directory)
        self.assertIn("Read-only file system", self.error())
        self.assertEqual(list(convoy_json("backup", "list", self.url)), kept)
        convoy("create", "again", "--backup", kept[0])
        convoy("delete", "again")
        run("mount", "-o", "remount,rw", self.directory)
        self.check(kept)

    def test_a_file_system_that_is_full(self) -> None:
        kept = [self.back_up()]
        filler = self.directory / "filler"
        space = os.statvfs(self.directory)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bfree * space.f_frsize - 20 * MIB)
        packs = self.packs()
        self.assertIn("No space left on device", self.error(SIZE))
        self.assertEqual(self.packs(), packs, "packs are left where there is no space")
        filler.unlink()
        self.check(kept)


class Nfs(Destination):
    make_options = ("-O", "quota", "-E", "quotatype=usrquota")
    mount_options = ("-o", "usrquota")
    url = f"vfs://{nfs_server.CLIENT}/"

    @classmethod
    def setUpClass(cls) -> None:
        nfs_server.start_server()
        # What client and server say of each other's absence.
        allow_kernel("NFSD: |NFSv4: |NFS: |nfs: |RPC: ")

    def mount(self) -> None:
        super().mount()
        nfs_server.serve()
        nfs_server.export()
        nfs_server.mount()

    def unmount(self) -> None:
        nfs_server.unmount()
        nfs_server.nfs("exportfs", "-ua")
        nfs_server.stop_serving()
        super().unmount()

    def test_it_is_an_object_store(self) -> None:
        there = os.environ | {"TEST_TMPDIR": str(nfs_server.CLIENT)}
        suite = [BUILD / "bin/objectstore_test", "--gtest_brief=1", "--gtest_filter=Directory/*"]
        result = subprocess.run(suite, env=there, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:])

    def test_life_of_a_backup(self) -> None:
        first, second = self.back_up(), self.back_up(20 * MIB)
        self.check([first, second])
        convoy("backup", "delete", first)
        convoy("backup", "gc", self.url)
        convoy("create", "again", "--backup", second)
        with snapshot_device("s2") as device:
            self.assertEqual(device_digest("/dev/mapper/again"), device_digest(device))
        convoy("delete", "again")
        for url in list(convoy_json("backup", "list", self.url)):
            convoy("backup", "delete", url)
        left = [str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file()]
        self.assertEqual(left, ["convoy/store.json"])

    def test_a_server_that_is_gone_in_the_middle(self) -> None:
        """However it is mounted, Linux waits for a server of NFS 4 until it is back; nobody else waits."""
        kept = [self.back_up()]

        def come_back() -> None:
            time.sleep(5)
            nfs_server.serve()

        url, error = self.back_up_while(nfs_server.stop_serving, come_back)
        if url:
            kept.append(url)
        else:
            self.assertRegex(error, "Connection timed out|Input/output error")
        self.check(kept)

    def test_a_directory_that_is_gone_from_the_server(self) -> None:
        self.back_up()
        run("mv", self.directory / "convoy", self.directory / "elsewhere")
        self.assertIn("is now empty: is it mounted?", self.error())
        nfs_server.nfs("exportfs", "-ua")
        self.assertRegex(self.error(), "Stale file handle|Permission denied|Operation not permitted|No such file")
        nfs_server.export()
        run("mv", self.directory / "elsewhere", self.directory / "convoy")
        self.assertEqual(len(convoy_json("backup", "list", self.url)), 1)

    def test_a_server_without_space_or_without_rights(self) -> None:
        kept = [self.back_up()]
        nfs_server.export("ro,no_root_squash")
        self.assertIn("Read-only file system", self.error())
        run("chown", "-R", str(nfs_server.QUOTA_IDS), self.directory)
        nfs_server.set_quota(DEVICE, nfs_server.QUOTA_IDS, SIZE // 1024 + 20 * 1024)
        nfs_server.export("rw,all_squash")
        # Packs may be left until they are garbage: the space of what did not fit is not always free at once, and a plan needs some.
        self.assertIn("Disk quota exceeded", self.error(SIZE))
        nfs_server.set_quota(DEVICE, nfs_server.QUOTA_IDS, 0)
        self.check(kept)


if __name__ == "__main__":
    unittest.main(verbosity=2)
