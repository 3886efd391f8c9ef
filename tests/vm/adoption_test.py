"""A catalog that is lost or damaged: its copy takes its place, or "convoy pool adopt" makes a new one of the pool alone."""
# budget: 600
# machine: --disk data=2G --disk meta=64M

import json
import os
import shutil
import signal
import subprocess
import time
import unittest
from pathlib import Path

from support import (
    DATA,
    KIB,
    LOG,
    META,
    MIB,
    ROOT,
    SOCKET,
    Daemon,
    NotStarted,
    PoolTest,
    compare_devices,
    convoy,
    convoy_error,
    convoy_json,
    device_digest,
    dm_devices,
    file_digests,
    mounts,
    pool_options,
    remove_tree,
    run,
    shut_down_pool,
    snapshot_device,
    wait_until,
)

CATALOG = ROOT / "catalog.db"
COPY = ROOT / "catalog.db.copy"


def adopt(*more: str, data: str = DATA, meta: str = META) -> subprocess.CompletedProcess:
    return run(
        "convoy", "--socket", SOCKET, "pool", "adopt", "--root", ROOT, *pool_options(data, meta), *more, check=False
    )


def identities() -> dict[str, tuple]:
    return {
        volume: (described["UUID"], described["DriverInfo"]["Size"], sorted(described["Snapshots"]))
        for volume, described in convoy_json("list").items()
    }


class Adoption(PoolTest):
    def make(self) -> None:
        """Two volumes with three snapshots, a third that was restored, and what is in them."""
        self.digests, self.files = {}, {}
        convoy("create", "db", "--size", "100M")
        convoy("create", "web", "--size", "400M", "--fs", "xfs")
        for number in range(3):
            for volume in ("db", "web"):
                directory = Path(convoy("mount", volume))
                (directory / f"file{number}").write_bytes(os.urandom(3 * MIB))
                (directory / "rewritten").write_bytes(os.urandom(MIB))
                convoy("umount", volume)
                if volume == "db" or number == 0:
                    self.snapshot(volume, f"{volume}-{number}")
        url = convoy("backup", "create", "db-1", "--dest", self.url)
        convoy("create", "copy", "--backup", url)
        for volume in ("db", "web", "copy"):
            self.digests[volume] = device_digest(f"/dev/mapper/{volume}")
            self.files[volume] = file_digests(convoy("mount", volume))
            convoy("umount", volume)
            self.digests[volume] = device_digest(f"/dev/mapper/{volume}")

    def snapshot(self, volume: str, name: str) -> None:
        convoy("snapshot", "create", volume, "--name", name)
        with snapshot_device(name) as device:
            self.digests[name] = device_digest(device)

    def names_by_content(self) -> dict[str, str]:
        """What each volume and snapshot is called now."""
        names = {}
        for volume, described in convoy_json("list").items():
            names["volume", device_digest(f"/dev/mapper/{volume}")] = volume
            for snapshot in described["Snapshots"]:
                with snapshot_device(snapshot) as device:
                    names["snapshot", device_digest(device)] = snapshot
        return {old: names["snapshot" if "-" in old else "volume", digest] for old, digest in self.digests.items()}

    def test_a_pool_alone(self) -> None:
        self.make()
        before = convoy_json("list")
        self.assertEqual(self.daemon.stop(), 0)
        shut_down_pool()
        remove_tree(ROOT)
        adopted = adopt()
        self.assertEqual(adopted.returncode, 0, adopted.stderr)
        self.assertEqual(dm_devices(), [])
        self.daemon.start()
        names = self.names_by_content()
        self.assertEqual(len(set(names.values())), 7)
        listed = convoy_json("list")
        told = json.loads(adopted.stdout)
        self.assertEqual(
            {name: sorted(entry["Snapshots"]) for name, entry in told.items()},
            {name: sorted(entry["Snapshots"]) for name, entry in listed.items()},
        )
        for volume in ("db", "web", "copy"):
            now, was = listed[names[volume]], before[volume]
            self.assertRegex(now["Name"], r"^recovered-\d+$")
            self.assertEqual(now["DriverInfo"]["Size"], was["DriverInfo"]["Size"])
            self.assertEqual(now["DriverInfo"]["Filesystem"], was["DriverInfo"]["Filesystem"])
            self.assertEqual(sorted(now["Snapshots"]), sorted(names[old] for old in was["Snapshots"]))
            self.assertEqual(file_digests(convoy("mount", names[volume])), self.files[volume])
            convoy("umount", names[volume])
        # It is a pool like any other: thin ids go on, backups are made.
        convoy("create", "new", "--size", "64M")
        url = convoy("backup", "create", names["db-2"], "--dest", self.url)
        convoy("create", "again", "--backup", url)
        with snapshot_device(names["db-2"]) as device:
            compare_devices(device, "/dev/mapper/again")
        for volume in [*listed, "new", "again"]:
            convoy("delete", volume)

    def test_a_pool_that_is_active(self) -> None:
        """A root that was deleted under volumes in use."""
        self.make()
        before = convoy_json("list")
        directory = Path(convoy("mount", "db"))
        with (directory / "open").open("w") as file:
            refused = adopt()
            self.assertIn("has a catalog", refused.stderr)
            self.daemon.kill()
            for kept in ("catalog.db", "catalog.db-wal", "catalog.db-shm", "catalog.db.copy"):
                (ROOT / kept).unlink(missing_ok=True)
            adopted = adopt()
            self.assertEqual(adopted.returncode, 0, adopted.stderr)
            print("written on", file=file)
        self.daemon.start()
        listed = convoy_json("list")
        self.assertEqual(list(listed), list(before))
        for volume in listed:
            self.assertEqual(listed[volume]["UUID"], before[volume]["UUID"])
            self.assertEqual(listed[volume]["DriverInfo"]["Size"], before[volume]["DriverInfo"]["Size"])
            self.assertEqual(len(listed[volume]["Snapshots"]), len(before[volume]["Snapshots"]))
        self.assertEqual((directory / "open").read_text(), "written on\n")
        convoy("umount", "--force", "db")

    def test_what_is_no_pool_of_ours(self) -> None:
        other = Path("/tmp/other-root")
        refused = run("convoy", "--socket", SOCKET, "pool", "adopt", "--root", other, *pool_options(), check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another daemon listens on", refused.stderr)
        self.assertFalse(other.exists())
        self.assertEqual(self.daemon.stop(), 0)
        self.assertIn("has a catalog: start the daemon", adopt().stderr)
        shut_down_pool()
        kept = ROOT.with_name("kept")
        remove_tree(kept)
        ROOT.rename(kept)
        for sentence, options in (
            ("dm.metadatadev is required", {"meta": ""}),
            ("holds no thin pool's metadata; give the device", {"meta": DATA, "data": META}),
            ("the same device", {"meta": DATA}),
            ("does not exist", {"data": "/dev/nothing"}),
        ):
            words = {"data": DATA, "meta": META} | options
            arguments = [f"dm.datadev={words['data']}"] + ([f"dm.metadatadev={words['meta']}"] if words["meta"] else [])
            options = [word for argument in arguments for word in ("--driver-opts", argument)]
            refused = run("convoy", "--socket", SOCKET, "pool", "adopt", "--root", ROOT, *options, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(sentence, refused.stderr)
        # The mark of one pool, and the metadata of another.
        image = Path("/tmp/other-data")
        run("truncate", "-s", "1G", image)
        with Path(DATA).open("rb") as begin, image.open("r+b") as file:
            file.write(begin.read(4 * KIB))
        loop = run("losetup", "--find", "--show", image).stdout.strip()
        self.assertIn("is not of the pool whose data", adopt(data=loop).stderr)
        run("losetup", "-d", loop)
        image.unlink()
        start = Path(DATA).open("r+b")
        mark = start.read(4 * KIB)
        start.seek(0)
        start.write(bytes(4 * KIB))
        start.flush()
        os.fsync(start.fileno())
        self.assertIn("does not begin with the mark of a pool of convoy", adopt().stderr)
        start.seek(0)
        start.write(mark)
        start.flush()
        os.fsync(start.fileno())
        start.close()
        self.assertFalse(ROOT.exists())
        self.assertEqual(dm_devices(), [])
        kept.rename(ROOT)

    def follow(self, name: str) -> None:
        """Waits until the copy has this."""
        wait_until(f"{name} in the copy", lambda: COPY.exists() and name.encode() in COPY.read_bytes())

    def test_a_damaged_catalog(self) -> None:
        self.make()
        before = identities()
        convoy("mount", "db")
        self.follow(mounts()[0])
        self.daemon.kill()
        good = CATALOG.read_bytes()
        for number, damage in enumerate((b"", b"\xff" * 100000, good[: len(good) // 2], None)):
            with self.subTest(damage=number):
                for part in ("-wal", "-shm"):
                    Path(f"{CATALOG}{part}").unlink(missing_ok=True)
                CATALOG.unlink()
                if damage is not None:
                    CATALOG.write_bytes(damage)
                self.daemon.start()
                self.assertEqual(identities(), before)
                self.assertEqual(convoy_json("inspect", "db")["MountPoint"], mounts()[0])
                self.assertIn("its copy takes its place", LOG.read_text())
                self.assertEqual(len(list(ROOT.glob("catalog.db.broken-*"))), number + (damage is not None))
                self.daemon.kill()
                time.sleep(1.1)  # the next one's name has the second in it
        self.daemon.start()
        del self.digests["db"]  # it is mounted
        self.assertEqual(self.names_by_content(), {name: name for name in self.digests})
        for broken in ROOT.glob("catalog.db.broken-*"):
            broken.unlink()

    def test_a_copy_that_is_behind(self) -> None:
        self.make()
        self.follow("db-2")
        behind = Path("/tmp/catalog.behind")
        time.sleep(1.5)
        shutil.copy(COPY, behind)
        convoy("delete", "copy")
        convoy("snapshot", "delete", "db-0")
        convoy("create", "late", "--size", "50M")
        directory = Path(convoy("mount", "late"))
        (directory / "file").write_text("late")
        convoy("umount", "late")
        self.digests["late"] = device_digest("/dev/mapper/late")
        self.snapshot("db", "late-of-db")
        self.snapshot("late", "late-of-late")
        for gone in ("copy", "db-0"):
            del self.digests[gone]
        self.daemon.kill()
        for active in (True, False):
            if not active:
                self.daemon.kill()
                shut_down_pool()
            for part in ("", "-wal", "-shm"):
                Path(f"{CATALOG}{part}").unlink(missing_ok=True)
            shutil.copy(behind, COPY)
            self.daemon.start()
            names = self.names_by_content()
            listed = convoy_json("list")
            self.assertEqual(names["db"], "db")
            self.assertEqual(listed["db"]["Snapshots"].keys(), {"db-1", "db-2", names["late-of-db"]})
            self.assertEqual(listed[names["late"]]["Snapshots"].keys(), {names["late-of-late"]})
            self.assertEqual(names["late"], "late" if active else "recovered-" + names["late"].split("-")[-1])
            # The next backup goes on where the last one in the store was.
            self.assertEqual(len(listed), 3)
        behind.unlink()

    def test_a_volume_that_was_being_restored(self) -> None:
        """It is not taken for one that is whole."""
        convoy("create", "db", "--size", "64M")
        Path(convoy("mount", "db"), "file").write_bytes(os.urandom(20 * MIB))
        convoy("snapshot", "create", "db", "--name", "s1")
        convoy("umount", "db")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        restore = subprocess.Popen(["convoy", "--socket", SOCKET, "create", "half", "--backup", url], stderr=subprocess.DEVNULL)
        while "half" not in dm_devices():
            time.sleep(0.001)
        run("dmsetup", "suspend", "--noflush", "--nolockfs", "half")
        self.follow("half")
        self.daemon.process.send_signal(signal.SIGKILL)
        run("dmsetup", "resume", "half")
        self.daemon.wait()
        restore.wait()
        for part in ("", "-wal", "-shm"):
            Path(f"{CATALOG}{part}").unlink(missing_ok=True)
        self.daemon.start()
        db, half = sorted(convoy_json("list"))
        self.assertEqual(db, "db")
        self.assertRegex(half, r"^recovered-\d+$")
        self.assertIn("volume half was being made and may not be whole", LOG.read_text())

    def test_neither_catalog_nor_copy(self) -> None:
        convoy("create", "db", "--size", "64M")
        self.follow("db")
        self.daemon.kill()
        kept = {file: file.read_bytes() for file in ROOT.glob("catalog.db*")}
        for file in kept:
            file.unlink() if file.suffix in (".db-wal", ".db-shm") else file.write_bytes(b"\xff" * 9000)
        with self.assertRaises(NotStarted) as refused:
            self.daemon.start()
        self.assertIn("build a new one with 'convoy pool adopt'", str(refused.exception))
        self.assertEqual({file.name for file in ROOT.glob("catalog.db*")}, {"catalog.db", "catalog.db.copy"})
        for file, content in kept.items():
            file.write_bytes(content)


if __name__ == "__main__":
    unittest.main(verbosity=2)
