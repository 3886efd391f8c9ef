"""The daemon is killed at every crash point that an operation comes by (src/base/crash_point.h). After the next start the operation
was done or was not, what was not done can be done, and nothing is left over.

Each operation runs once to count its points; then it is made ready and run again for each of them, killed there. In the short form
for some of them, which CONVOY_SEED chooses (it is printed); in the long form for all, and once more with the starts after it
killed, too.
"""
# budget: 1200
# long budget: 7200
# machine: --memory 2G

import dataclasses
import itertools
import json
import os
import random
import signal
import unittest
import uuid
from collections.abc import Callable
from pathlib import Path

from crashing import CRASHING, EVERY, LONG, NEVER, SEED, arm, passed
from promises import check_nothing_is_left, files_of, sync_file_system
from support import (
    DATA, LOG, META, MIB, ROOT, SOCKET, UNDONE_CREATE, Daemon, NotStarted, allow_kernel, convoy, convoy_json, docker, file_digests,
    pool_options, remove_tree, run, shut_down_pool, snapshot_device, thin_check, wipe,
)

RECOVERIES = ("undisturbed", "killed") if LONG else ("undisturbed",)

CATALOG = ROOT / "catalog.db"


def write(mountpoint: str, name: str, size: int = MIB) -> None:
    """The same bytes for the same name."""
    file = Path(mountpoint, name)
    file.write_bytes(random.Random(name).randbytes(size))
    sync_file_system(mountpoint)


def create(name: str, *options: str) -> None:
    convoy("create", name, "--size", "16M", *options)


def create_with_files(*files: str, name: str = "db") -> str:
    """A volume that is mounted."""
    create(name)
    mountpoint = convoy("mount", name)
    for file in files:
        write(mountpoint, file)
    return mountpoint


def snapshot(name: str, volume: str = "db") -> None:
    convoy("snapshot", "create", volume, "--name", name)


class Store:
    """The destination of this run: the daemon would miss the store in one that was emptied."""

    directory = Path("/tmp/backups/0")

    @classmethod
    def begin(cls) -> None:
        cls.directory = cls.directory.with_name(str(int(cls.directory.name) + 1))
        cls.directory.mkdir(parents=True)

    @classmethod
    def exists(cls) -> bool:
        return (cls.directory / "convoy/store.json").exists()

    @classmethod
    def url(cls) -> str:
        return f"vfs://{cls.directory}/"


def back_up(name: str) -> str:
    return convoy("backup", "create", name, "--dest", Store.url())


def backups() -> dict[str, str]:
    """URLs, by the name of the snapshot."""
    if not Store.exists():
        return {}
    return {backup["SnapshotName"]: url for url, backup in convoy_json("backup", "list", Store.url()).items()}


def docker_call(call: str, **fields: object) -> None:
    answer = docker(f"VolumeDriver.{call}", **fields)
    if "Err" in answer:
        raise AssertionError(answer["Err"])


def nothing() -> None:
    pass


def with_backups(*names: str) -> None:
    mountpoint = create_with_files("one")
    for number, name in enumerate(names):
        snapshot(name)
        back_up(name)
        write(mountpoint, f"more{number}")
    convoy("umount", "db")


def with_old_backup() -> None:
    with_backups("s1")
    # The volume itself has moved on.
    write(convoy("mount", "db"), "one", MIB // 2)
    convoy("umount", "db")


def with_half_dead_pack() -> None:
    mountpoint = create_with_files("one")
    write(mountpoint, "large", 6 * MIB)
    snapshot("s1")
    back_up("s1")
    Path(mountpoint, "large").unlink()
    sync_file_system(mountpoint)
    convoy("trim", "db")
    snapshot("s2")
    back_up("s2")
    convoy("backup", "delete", backups()["s1"])
    convoy("umount", "db")


def leases() -> list[Path]:
    """Those that are not revoked. One that is may stay, and is removed with its revocation."""
    found = Store.directory.glob("convoy/volumes/*/leases/*.json")
    return [lease for lease in found if not lease.with_suffix(".revoked").exists()]


def with_lease() -> None:
    """Of a host that died."""
    with_backups("s1")
    (lineage,) = Store.directory.glob("convoy/volumes/*")
    backup = str(uuid.uuid4())
    (lineage / "leases").mkdir(exist_ok=True)
    (lineage / f"leases/{backup}.json").write_text(json.dumps({"version": 1, "backup": backup, "builds_on": []}))


@dataclasses.dataclass
class Operation:
    ready: Callable[[], object]
    act: Callable[[], object]
    look: Callable[[], object] = nothing  # what it changes that users don't see otherwise


OPERATIONS = {
    "create": Operation(nothing, lambda: create("new")),
    "create of a name that was used": Operation(lambda: (create("new"), convoy("delete", "new")), lambda: create("new")),
    "delete": Operation(lambda: (create_with_files("one"), snapshot("s1"), convoy("umount", "db")), lambda: convoy("delete", "db")),
    "mount": Operation(lambda: create("db"), lambda: convoy("mount", "db")),
    "umount": Operation(lambda: create_with_files("one"), lambda: convoy("umount", "db")),
    "umount by force": Operation(
        lambda: (create("db"), docker_call("Mount", Name="db", ID="container")), lambda: convoy("umount", "--force", "db")
    ),
    "snapshot of a mounted volume": Operation(lambda: create_with_files("one"), lambda: snapshot("s1")),
    "snapshot of a volume at rest": Operation(lambda: (create_with_files("one"), convoy("umount", "db")), lambda: snapshot("s1")),
    "deletion of a snapshot": Operation(
        lambda: (create_with_files("one"), snapshot("s1")), lambda: convoy("snapshot", "delete", "s1")
    ),
    "trim": Operation(lambda: create_with_files("one"), lambda: convoy("trim", "db")),
    "first backup": Operation(lambda: (create_with_files("one"), snapshot("s1")), lambda: back_up("s1")),
    "next backup": Operation(lambda: (with_backups("s1"), snapshot("s2")), lambda: back_up("s2")),
    "deletion of a backup": Operation(lambda: with_backups("s1", "s2"), lambda: convoy("backup", "delete", backups()["s1"])),
    "collection of garbage": Operation(
        with_half_dead_pack, lambda: convoy("backup", "gc", Store.url()),
        lambda: bool(convoy_json("backup", "gc", "--dry-run", Store.url())["Packs"]),
    ),
    "unlocking": Operation(with_lease, lambda: convoy("backup", "unlock", Store.url()), lambda: bool(leases())),
    "restore": Operation(lambda: with_backups("s1"), lambda: convoy("create", "copy", "--backup", backups()["s1"])),
    "restore onto a volume": Operation(with_old_backup, lambda: convoy("restore", backups()["s1"], "--into", "db")),
    "Docker's create": Operation(nothing, lambda: docker_call("Create", Name="new", Opts={"size": "16M"})),
    "Docker's mount": Operation(lambda: create("db"), lambda: docker_call("Mount", Name="db", ID="container")),
    "Docker's unmount": Operation(
        lambda: (create("db"), docker_call("Mount", Name="db", ID="container")),
        lambda: docker_call("Unmount", Name="db", ID="container"),
    ),
    "Docker's remove": Operation(lambda: create("db"), lambda: docker_call("Remove", Name="db")),
}


class CrashPoints(unittest.TestCase):
    def setUp(self) -> None:
        passed()
        wipe(DATA, META)
        remove_tree(ROOT)
        LOG.unlink(missing_ok=True)
        allow_kernel(UNDONE_CREATE)
        self.daemon: Daemon | None = None
        self.addCleanup(self.tear_down)

    def start(self, data: str = DATA) -> None:
        self.daemon = Daemon(pool=pool_options(data), program=CRASHING)
        (ROOT / "devicemapper/mounts").mkdir(parents=True, exist_ok=True)  # which the first mount would make, and no other

    def tear_down(self) -> None:
        passed()
        if self._outcome.result.failures or self._outcome.result.errors:  # type: ignore[attr-defined]
            Path(os.environ["VM_OUT"], f"{self.id()}.log").write_text(LOG.read_text()[-100_000:])
        if self.daemon and self.daemon.process:
            self.daemon.stop()
        shut_down_pool()
        thin_check()

    # --- What users see, and what nobody sees ---

    def visible(self) -> dict:
        volumes = {}
        for name, volume in convoy_json("list").items():
            mountpoint = volume["MountPoint"]
            snapshots = {}
            for each in volume["Snapshots"]:
                with snapshot_device(each) as device:
                    snapshots[each] = files_of(device)
            files = file_digests(mountpoint) if mountpoint else files_of(f"/dev/mapper/{name}")
            volumes[name] = (volume["DriverInfo"]["Size"], mountpoint, files, snapshots)
        return {"volumes": volumes, "backups": sorted(backups())}

    def check_nothing_is_left(self) -> None:
        check_nothing_is_left(self)

    def check_backups(self) -> None:
        if Store.exists():
            self.assertEqual(convoy_json("backup", "verify", Store.url())["Damaged"], [])

    # --- The campaign ---

    def make_ready(self, operation: Operation) -> None:
        Store.begin()
        operation.ready()

    def clear_away(self) -> None:
        for name, volume in convoy_json("list").items():
            if volume["MountPoint"]:
                convoy("umount", "--force", name)
            convoy("delete", name)

    def crash(self, operation: Operation, point: int) -> tuple[str, bool]:
        """Where it was killed, and whether the operation was answered with success all the same."""
        arm(point)
        try:
            operation.act()
            answered = True
        except (AssertionError, OSError, json.JSONDecodeError):
            answered = False
        names = passed()
        self.assertEqual(len(names), point, "the operation does not come by this point each time")
        self.assertEqual(self.daemon.wait(), -signal.SIGKILL)
        return names[-1], answered

    def check_operation(self, name: str) -> None:
        operation = OPERATIONS[name]
        self.make_ready(operation)
        before = self.visible(), operation.look()
        arm(NEVER)
        operation.act()
        points = passed()
        after = self.visible(), operation.look()
        if operation.look is not nothing:
            self.assertNotEqual(before, after)
        self.check_nothing_is_left()
        self.assertTrue(points, "no crash point stands in its way")
        self.clear_away()
        chosen = range(1 + (SEED + len(name)) % min(EVERY, len(points)), len(points) + 1, EVERY)
        for point, recovery in itertools.product(chosen, RECOVERIES):
            self.make_ready(operation)
            where, answered = self.crash(operation, point)
            with self.subTest(point=point, after=where, recovery=recovery):
                starts = self.recover(recovery)
                found = self.visible(), operation.look()
                self.assertIn(found, [after] if answered else [before, after])
                self.check_nothing_is_left()
                self.check_backups()
                if found == before != after:
                    operation.act()
                    self.assertEqual((self.visible(), operation.look()), after)
                    self.check_nothing_is_left()
                    self.check_backups()
                print(f"{name}: killed at {point} of {len(points)}, {where}; {starts} starts", flush=True)
            self.clear_away()

    # --- Starts are operations, too ---

    def check_starts(self, ready: Callable[[], object], start: Callable[[], object]) -> None:
        ready()
        arm(NEVER)
        start()
        points = passed()
        self.assertGreater(len(points), 1)
        before = self.visible()
        for point in range(1 + SEED % min(EVERY, len(points)), len(points) + 1, EVERY):
            with self.subTest(point=point):
                ready()
                self.assertTrue(self.is_killed_as_it_starts(start, point))
                start()
                self.assertEqual(self.visible(), before)
                self.check_nothing_is_left()
                print(f"killed at {point} of {len(points)}, {points[point - 1]}", flush=True)

    def test_the_first_start(self) -> None:
        allow_kernel("thin: Creation of new thinly-provisioned device with id 0 failed")  # the label's, which is there already

        def ready() -> None:
            if self.daemon and self.daemon.process:
                self.daemon.stop()
            shut_down_pool()
            wipe(DATA, META)
            remove_tree(ROOT)

        self.check_starts(ready, self.start)

    def test_a_start_after_a_reboot(self) -> None:
        self.start()
        self.make_some()
        self.check_starts(self.go_down, self.daemon.start)
        self.clear_away()

    def go_down(self) -> None:
        if self.daemon.process:
            self.daemon.stop()
        shut_down_pool()

    def make_some(self) -> None:
        create_with_files("one", "two")
        snapshot("s1")
        create("other")

    def test_an_adoption_and_the_start_after_it(self) -> None:
        self.start()
        self.make_some()

        def ready() -> None:
            self.go_down()
            remove_tree(ROOT)

        def start() -> None:
            if not CATALOG.exists():
                adopted = run(CRASHING, "--socket", SOCKET, "pool", "adopt", "--root", ROOT, *pool_options(), check=False)
                if adopted.returncode != 0:
                    raise NotStarted(adopted.returncode, adopted.stderr)
            self.daemon.start()

        self.check_starts(ready, start)
        self.clear_away()

    def test_a_start_whose_catalog_is_damaged(self) -> None:
        self.start()
        self.make_some()
        convoy("umount", "db")
        self.daemon.stop()  # which brings the copy up to date

        def ready() -> None:
            self.go_down()
            CATALOG.write_bytes(b"damaged" * 1000)

        self.check_starts(ready, self.daemon.start)
        self.assertTrue(list(ROOT.glob("catalog.db.broken-*")))
        self.clear_away()

    def test_growing_the_pool(self) -> None:
        file = Path("/tmp/data")
        file.touch()
        os.truncate(file, size := 256 * MIB)
        self.addCleanup(file.unlink)
        loop = run("losetup", "--find", "--show", file).stdout.strip()
        self.addCleanup(run, "losetup", "--detach", loop)
        self.start(loop)
        create_with_files("one")
        before = self.visible()

        def enlarge() -> int:
            os.truncate(file, size + 32 * MIB)
            run("losetup", "--set-capacity", loop)
            return size + 32 * MIB

        def pool_size() -> int:
            return int(convoy_json("info")["devicemapper"]["ThinpoolSize"])

        operation = Operation(nothing, lambda: convoy("pool", "grow"))
        size = enlarge()
        arm(NEVER)
        operation.act()
        points = passed()
        self.assertGreater(len(points), 1)
        for point in range(1, len(points) + 1):
            with self.subTest(point=point):
                old, size = size, enlarge()
                where, answered = self.crash(operation, point)
                self.daemon.start()
                self.assertIn(pool_size(), [size] if answered else [old, size])
                if pool_size() == old:
                    operation.act()
                self.assertEqual(pool_size(), size)
                self.assertEqual(self.visible(), before)
                self.check_nothing_is_left()
                print(f"growing the pool: killed at {point} of {len(points)}, {where}", flush=True)
        self.clear_away()

    def recover(self, recovery: str) -> int:
        """Starts again; "killed": the first start is killed at its first point, the second at its second, and so on, until one has
        no such point. How many starts it took."""
        starts = 1
        while recovery == "killed":
            if not self.is_killed_as_it_starts(self.daemon.start, starts):
                return starts
            starts += 1
        self.daemon.start()
        return starts

    def is_killed_as_it_starts(self, start: Callable[[], object], point: int) -> bool:
        """At this point, if it comes by so many."""
        arm(point)
        try:
            start()
        except NotStarted as failure:
            self.assertEqual((failure.status, len(passed())), (-signal.SIGKILL, point), str(failure))
            return True
        self.assertLess(len(passed()), point)
        return False


def add_tests() -> None:
    for name in OPERATIONS:

        def test(self: CrashPoints, name: str = name) -> None:
            self.start()
            self.check_operation(name)

        setattr(CrashPoints, "test_" + name.replace(" ", "_").replace("'", "_"), test)


add_tests()


if __name__ == "__main__":
    print(f"CONVOY_SEED={SEED}", flush=True)
    unittest.main(verbosity=2)
