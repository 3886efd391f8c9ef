"""A root and a pool of Rancher Convoy 0.5.2, laid out as it left them, are taken over at the first start."""
# budget: 1200
# long budget: 2400
# machine: --disk data=1G --disk meta=64M --disk root=256M --disk spare=64M

import json
import os
import signal
import sqlite3
import subprocess
import unittest
from pathlib import Path

from crashing import CRASHING, EVERY, NEVER, SEED, arm, passed
from old_convoy import (
    CREATED, DRIVER_ROOT, POOL_FILE, SECTORS, SIZE, OldConvoy, activate, message, old_files, sectors_of, thin_digest, uuid_of,
)
from support import (
    DATA,
    LOG,
    META,
    ROOT,
    Daemon,
    NotStarted,
    allow_kernel,
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
    thin_check,
    wipe,
)

BOOT = int(os.environ.get("VM_BOOT", "1"))
OUT = Path(os.environ["VM_OUT"])
SPARE = os.environ.get("DISK_SPARE", "")


def daemon_error(*options: str) -> str:
    result = run(
        "convoy", "--socket", "/run/other.sock", "daemon", "--root", ROOT, *options, check=False, timeout=30
    )  # fmt: skip
    if result.returncode != 1:
        raise AssertionError(f"{options}: status {result.returncode}: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)["Error"]


def check_volumes(test: unittest.TestCase, old: OldConvoy) -> None:
    """All that Convoy had is there, as it was."""
    volumes = convoy_json("list")
    test.assertEqual(sorted(volumes), ["app", "db", "logs"])
    for name, thin_id in (("db", 1), ("app", 3), ("logs", 5)):
        info = volumes[name]["DriverInfo"]
        test.assertEqual((info["DevID"], info["Size"], info["Filesystem"]), (str(thin_id), str(SIZE), "ext4"))
        test.assertEqual(volumes[name]["MountPoint"], str(old.mountpoints.get(name, "")))
        test.assertEqual(volumes[name]["CreatedTime"], CREATED)
    snapshots = volumes["db"]["Snapshots"]
    test.assertEqual({name: s["DriverInfo"]["DevID"] for name, s in snapshots.items()}, {"s1": "2", "s2": "4"})
    shown = run("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "name,uuid").stdout
    uuids = dict(line.split() for line in shown.splitlines())
    test.assertEqual(sorted(uuids), ["app", "convoy-pool", "db", "logs"])
    test.assertTrue(all(uuid.startswith("CONVOY-") for uuid in uuids.values()), uuids)
    test.assertEqual(sorted(mounts()), sorted(str(directory) for directory in old.mountpoints.values()))
    for name, digests in old.files.items():
        test.assertLessEqual(digests.items(), file_digests(old.mountpoints[name]).items())
    test.assertEqual({"s1": thin_digest(2), "s2": thin_digest(4)}, old.snapshot_digests)
    test.assertNotIn("skip_block_zeroing", run("dmsetup", "table", "convoy-pool").stdout)
    test.assertEqual(
        old_files(),
        ["convoy.cfg.taken-over", "devicemapper.cfg.taken-over"]
        + [f"devicemapper_volume_{name}.json.taken-over" for name in ("app", "db", "logs")],
    )


def check_life(test: unittest.TestCase, old: OldConvoy) -> None:
    """What users do with volumes, until none is left."""
    destination = Path("/tmp/backups")
    remove_tree(destination)
    destination.mkdir()
    urls = {name: convoy("backup", "create", name, "--dest", f"vfs://{destination}/") for name in ("s1", "s2")}
    for name, url in urls.items():
        convoy("create", "copy", "--backup", url)
        test.assertEqual(device_digest("/dev/mapper/copy"), old.snapshot_digests[name])
        convoy("delete", "copy")
    convoy("create", "new", "--size", "64M")
    test.assertLess(7, int(convoy_json("inspect", "new")["DriverInfo"]["DevID"]))
    convoy("mount", "new")
    convoy("umount", "new")
    run("fsck.ext4", "-fn", "/dev/mapper/new")
    convoy("umount", "db")
    convoy("mount", "db", "--mountpoint", "/mnt")
    convoy("snapshot", "create", "db", "--name", "s3")
    convoy("snapshot", "delete", "s1")
    convoy("umount", "db")
    test.assertEqual(convoy("mount", "app"), str(DRIVER_ROOT / "mounts" / "app"))
    for name in ("app", "logs"):
        convoy("umount", name)
    run("fsck.ext4", "-fn", "/dev/mapper/logs")
    convoy("delete", "db", "app", "logs", "new")
    test.assertEqual(convoy_json("info")["devicemapper"]["ThinpoolUsed"], "0")


class Takeover(unittest.TestCase):
    def setUp(self) -> None:
        wipe(DATA, META)
        remove_tree(ROOT)
        LOG.unlink(missing_ok=True)
        self.daemon: Daemon | None = None
        self.addCleanup(self.tear_down)
        self.old = OldConvoy()

    def tear_down(self) -> None:
        if LOG.exists():
            Path(os.environ["VM_OUT"], f"{self.id()}.log").write_text(LOG.read_text())
        if self.daemon and self.daemon.process:
            self.daemon.stop()
        shut_down_pool()
        thin_check()

    def start(self, *options: str) -> None:
        self.daemon = Daemon(pool=list(options))

    def refused(self, sentence: str, *options: str) -> None:
        before = (file_digests(ROOT), run("dmsetup", "table").stdout, run("dmsetup", "info", "-c", "-o", "name,uuid").stdout)
        self.assertIn(sentence, daemon_error(*options))
        after = (file_digests(ROOT), run("dmsetup", "table").stdout, run("dmsetup", "info", "-c", "-o", "name,uuid").stdout)
        self.assertEqual(after, before)

    def test_live_under_writers(self) -> None:
        beat = self.old.mountpoints["db"] / "beat"
        writer = subprocess.Popen(["sh", "-c", f"while :; do date > {beat}; sync {beat}; sleep 0.02; done"])
        self.addCleanup(writer.kill)
        # The options that Convoy was started with.
        self.start(*pool_options(thinpoolname="convoy-pool", thinpoolblocksize="4096", fs="ext4"))
        check_volumes(self, self.old)
        self.assertIsNone(writer.poll())
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.daemon.stop(how)
            self.daemon.start()
            check_volumes(self, self.old)
        writer.kill()
        writer.wait()
        check_life(self, self.old)

    def test_after_a_reboot(self) -> None:
        shut_down_pool()
        self.start()
        check_volumes(self, self.old)
        self.daemon.stop()
        shut_down_pool()
        self.daemon.start()
        check_volumes(self, self.old)
        check_life(self, self.old)

    def test_a_suspended_volume_is_resumed(self) -> None:
        run("dmsetup", "suspend", "app")
        self.start()
        check_volumes(self, self.old)
        self.assertIn("ACTIVE", run("dmsetup", "info", "app").stdout)

    def test_numbers_as_text_and_times_that_nobody_can_read(self) -> None:
        text = json.loads(POOL_FILE.read_text())
        POOL_FILE.write_text(json.dumps({key: str(value) for key, value in text.items()}))
        self.old.write_volume("app", 3, DevID="3", Size=str(SIZE), CreatedTime="", Filesystem="")
        file = DRIVER_ROOT / "devicemapper_volume_app.json"
        os.utime(file, (86400, 86400))
        self.start()
        volumes = convoy_json("list")
        self.assertEqual(sorted(volumes), ["app", "db", "logs"])
        self.assertEqual(volumes["app"]["CreatedTime"], "Fri Jan 02 00:00:00 +0000 1970")
        self.assertEqual(volumes["app"]["DriverInfo"]["Filesystem"], "ext4")

    def test_options_that_contradict_are_refused(self) -> None:
        for active in (True, False):
            if not active:
                shut_down_pool()
            self.refused("dm.thinpoolname=other contradicts", "--driver-opts", "dm.thinpoolname=other")
            self.refused("dm.thinpoolblocksize=128 contradicts", "--driver-opts", "dm.thinpoolblocksize=128")
            self.refused(f"dm.datadev={SPARE} contradicts", "--driver-opts", f"dm.datadev={SPARE}")
            self.refused(f"dm.metadatadev={SPARE}", "--driver-opts", f"dm.metadatadev={SPARE}")
            self.refused("which --force-new-pool would destroy", "--force-new-pool")
        settings = ROOT / "convoy.cfg"
        known = settings.read_text()
        for before, after, option in (
            ('"IgnoreDockerDelete": false', '"IgnoreDockerDelete": true', "--ignore-docker-delete"),
            ('"CreateOnDockerMount": false', '"CreateOnDockerMount": true', "--create-on-docker-mount"),
            ('"MountNamespaceFD": ""', '"MountNamespaceFD": "/proc/1/ns/mnt"', "--mnt-ns"),
        ):
            self.assertIn(before, known)
            settings.write_text(known.replace(before, after))
            self.refused(f"which is an option now: start with {option}")
        settings.write_text(known)
        self.assertFalse((ROOT / "catalog.db").exists())
        # Another path of the same device, and new defaults, are no contradiction.
        run("cp", "-a", DATA, "/dev/other-data")
        self.start("--driver-opts", "dm.datadev=/dev/other-data", "--driver-opts", "dm.defaultvolumesize=200M")
        check_volumes(self, self.old)
        info = convoy_json("info")["devicemapper"]
        self.assertEqual((info["DataDevice"], info["DefaultVolumeSize"]), ("/dev/other-data", str(200 << 20)))

    def test_a_pool_that_is_another_is_refused(self) -> None:
        shut_down_pool()
        POOL_FILE.write_text(POOL_FILE.read_text().replace('"ThinpoolBlockSize": 4096', '"ThinpoolBlockSize": 8192'))
        self.refused("has a pool with blocks of 4096 sectors, but in Convoy's files they have 8192")
        self.old.write_files()
        table = f"0 {sectors_of(DATA)} thin-pool {META} {DATA} 4096 32768 1 skip_block_zeroing"
        run("dmsetup", "create", "convoy-pool", "-u", "OTHER-1", "--table", table)
        self.refused("it has the dm UUID OTHER-1")
        run("dmsetup", "remove", "convoy-pool")
        # One with none of the volumes, on the same data device.
        wipe(SPARE)
        table = table.replace(META, SPARE)
        run("dmsetup", "create", "convoy-pool", "--table", table)
        self.refused("dm.metadatadev=%s contradicts the running pool" % META)
        run("dmsetup", "remove", "convoy-pool")
        self.refused("has none of the 3 volumes in Convoy's files", "--driver-opts", f"dm.metadatadev={SPARE}")
        # The same, running, as an old copy of a root finds it: it is somebody else's.
        run("dmsetup", "create", "convoy-pool", "--table", table)
        sentence = daemon_error("--driver-opts", f"dm.metadatadev={SPARE}")
        self.assertIn("has none of the 3 volumes in Convoy's files", sentence)
        self.assertEqual(uuid_of("convoy-pool"), "")
        self.assertIn("skip_block_zeroing", run("dmsetup", "table", "convoy-pool").stdout)
        run("dmsetup", "remove", "convoy-pool")
        POOL_FILE.write_text("")
        self.refused(f"{POOL_FILE}: is empty")
        self.old.write_files()
        self.start()
        check_volumes(self, self.old)

    def test_devices_that_do_not_match_are_left_alone(self) -> None:
        run("umount", self.old.mountpoints["logs"])
        run("dmsetup", "remove", "app", "logs", "s2")
        run("dmsetup", "create", "app", "--table", f"0 {SECTORS} linear {SPARE} 0")
        activate("logs", 3)
        run("dmsetup", "create", "s2", "--table", f"0 8 linear {SPARE} 0")
        tables = run("dmsetup", "table").stdout.splitlines()
        self.start()
        for name in ("app", "logs", "s2"):
            self.assertEqual(uuid_of(name), "")
            self.assertIn(next(line for line in tables if line.startswith(name + ":")), run("dmsetup", "table").stdout)
            self.assertIn(f"/dev/mapper/{name} is left alone", LOG.read_text())
        self.assertEqual(mounts(), [str(self.old.mountpoints["db"])])
        self.assertEqual(sorted(convoy_json("list")), ["app", "db", "logs"])
        self.assertIn("is not ours", convoy_error("mount", "app"))
        self.assertIn("is not ours", convoy_error("snapshot", "create", "app"))
        convoy("snapshot", "create", "db", "--name", "s3")
        convoy("snapshot", "delete", "s3")
        run("dmsetup", "remove", "app", "logs", "s2")
        self.daemon.stop()
        self.daemon.start()
        check_volumes(self, self.old)

    def test_what_can_not_be_taken_over_does_not_stop_the_rest(self) -> None:
        message("create_thin 6")
        message("create_thin 7")
        message("create_snap 8 7")
        self.old.write_volume("gone", 77)
        lost = {"good name": {"Name": "good name", "CreatedTime": CREATED, "DevID": 8, "Activated": False}}
        self.old.write_volume("../../evil", 7, file="evil", Snapshots=lost)
        # A snapshot with the name of a volume that comes later.
        message("create_snap 10 3")
        taken = {"logs": {"Name": "logs", "CreatedTime": CREATED, "DevID": 10, "Activated": False}}
        self.old.write_volume("again", 3, Snapshots=taken)
        (DRIVER_ROOT / "devicemapper_volume_cut.json").touch()
        self.start()
        self.assertEqual(sorted(convoy_json("list")), ["again", "db", "logs"])
        log = LOG.read_text()
        for sentence in (
            "volume 'gone' is not taken over: the pool has no thin device 77",
            "volume '../../evil' is not taken over: '../../evil' can't be the name of a volume",
            f"dmsetup create NAME --table '0 {SECTORS} thin /dev/mapper/convoy-pool 7'",
            "snapshot 'good name' is not taken over: its volume is not",
            f"dmsetup create NAME --table '0 {SECTORS} thin /dev/mapper/convoy-pool 8'",
            "volume 'app' is not taken over: another one has thin device 3",
            "snapshot 'logs' is not taken over: another one has that name",
            "devicemapper_volume_cut.json: is empty",
            "the pool has a thin device 6 ",
        ):
            self.assertIn(sentence, log)
        self.assertEqual(uuid_of("app"), "")
        # Its thin device is that of 'app': mounted by both names, it would be destroyed.
        self.assertIn("volume again is left inactive: /dev/mapper/app is the same thin device", log)
        self.assertIn("volume 'again' is not active", convoy_error("mount", "again"))
        convoy("create", "new", "--size", "64M")
        self.assertEqual(convoy_json("inspect", "new")["DriverInfo"]["DevID"], "11")

    def test_files_that_are_put_back_are_not_taken_for_new_ones(self) -> None:
        self.start()
        self.daemon.stop()
        (DRIVER_ROOT / "devicemapper.cfg.taken-over").rename(POOL_FILE)
        self.assertIn("devicemapper.cfg is back", daemon_error())
        # Back to Convoy, which makes its pool with its own table, and over again.
        shut_down_pool()
        for path in [*ROOT.glob("*.taken-over"), *DRIVER_ROOT.glob("*.taken-over")]:
            path.rename(path.with_suffix(""))
        for path in ROOT.glob("catalog.db*"):
            path.unlink()
        self.daemon.start()
        check_volumes(self, self.old)

    def test_a_takeover_that_was_cut_short_goes_on(self) -> None:
        self.start()
        self.daemon.stop()
        # Killed before the last file was renamed.
        with sqlite3.connect(ROOT / "catalog.db") as catalog:
            catalog.execute("UPDATE pool SET state = 'creating'")
        for name in ("devicemapper.cfg", "devicemapper_volume_db.json"):
            (DRIVER_ROOT / (name + ".taken-over")).rename(DRIVER_ROOT / name)
        self.daemon.start()
        check_volumes(self, self.old)
        self.daemon.stop()
        # Killed before the pool got its transaction id, and then the host went down.
        with sqlite3.connect(ROOT / "catalog.db") as catalog:
            (transaction,) = catalog.execute("SELECT transaction_id FROM pool").fetchone()
            catalog.execute("UPDATE pool SET state = 'creating'")
        message(f"set_transaction_id {transaction} 0")
        shut_down_pool()
        for path in [*ROOT.glob("*.taken-over"), *DRIVER_ROOT.glob("*.taken-over")]:
            path.rename(path.with_suffix(""))
        message_log = len(LOG.read_text())
        self.daemon.start()
        self.assertIn("is taken over, with 3 volumes and 2 snapshots", LOG.read_text()[message_log:])
        check_volumes(self, self.old)
        check_life(self, self.old)

    def test_a_kill_at_any_moment(self) -> None:
        self.addCleanup(passed)
        arm(NEVER)
        daemon = Daemon(pool=[], program=CRASHING)
        points = passed()
        daemon.stop()
        self.assertGreater(len(points), 20)
        for number, point in enumerate(range(1 + SEED % EVERY, len(points) + 1, EVERY)):
            self.tear_down()
            wipe(DATA, META)
            remove_tree(ROOT)
            self.old = OldConvoy()
            arm(point)
            try:
                daemon = Daemon(pool=[], program=CRASHING)
            except NotStarted as failure:
                self.assertEqual((failure.status, len(passed())), (-signal.SIGKILL, point))
            else:  # a directory that the first start made is there now, so there is one point less
                self.assertEqual((point, len(passed())), (len(points), point - 1))
                daemon.stop()
                break
            if number % 3 == 2:
                shut_down_pool()
            print(f"CONVOY_SEED={SEED}: killed at {point} of {len(points)}, {points[point - 1]}", flush=True)
            with self.subTest(point=point, after=points[point - 1], left=catalog_state()):
                self.start()
                check_volumes(self, self.old)


def catalog_state() -> str:
    with sqlite3.connect(f"file:{ROOT}/catalog.db?mode=ro", uri=True) as catalog:
        (state,) = catalog.execute("SELECT state FROM pool").fetchone() or ("unknown",)
        (devices,) = catalog.execute("SELECT count(*) FROM device").fetchone()
    return f"pool {state}, {devices} volumes and snapshots"


class Reboot(unittest.TestCase):
    """The machine itself boots between Convoy's end and our start."""

    def test_everything_is_back(self) -> None:
        root_disk = os.environ["DISK_ROOT"]
        ROOT.mkdir(parents=True, exist_ok=True)
        if BOOT == 1:
            run("mkfs.ext4", "-q", root_disk)
            run("mount", root_disk, ROOT)
            wipe(DATA, META)
            old = OldConvoy()
            (OUT / "old.json").write_text(json.dumps({"files": old.files, "snapshots": old.snapshot_digests}))
            os.sync()
            (OUT / "reboot").touch()
            return
        run("mount", root_disk, ROOT)
        self.assertEqual(dm_devices(), [])
        old = OldConvoy.__new__(OldConvoy)
        known = json.loads((OUT / "old.json").read_text())
        old.files, old.snapshot_digests = known["files"], known["snapshots"]
        old.mountpoints = {"db": DRIVER_ROOT / "mounts" / "db", "logs": ROOT / "elsewhere"}
        daemon = Daemon(pool=[])
        check_volumes(self, old)
        check_life(self, old)
        daemon.stop()
        shut_down_pool()
        run("umount", ROOT)
        thin_check()


def load_tests(loader: unittest.TestLoader, _: object, __: object) -> unittest.TestSuite:
    cases = [Reboot] if BOOT > 1 else [Takeover, Reboot]
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    # The pool as Convoy made it: on a disk that takes no discards, and with a low water mark of 64 GiB.
    allow_kernel("Disabling discard passdown")
    allow_kernel("EXT4-fs .*callbacks suppressed")
    allow_kernel("reached low water mark for data device")
    unittest.main(verbosity=2)
