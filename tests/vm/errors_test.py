"""Every sentence that a user's mistake brings: it says what is wrong, the status is not 0, and nothing is changed."""
# budget: 800
# machine: --disk meta=64M --disk spare=64M --disk small=1M

import contextlib
import json
import os
import subprocess
import unittest
from pathlib import Path

from support import (
    DATA,
    META,
    MIB,
    ROOT,
    SOCKET,
    Daemon,
    DockerCall,
    PoolTest,
    allow_kernel,
    convoy,
    convoy_error,
    convoy_json,
    device_digest,
    dm_devices,
    pool_options,
    remove_tree,
    run,
    seal_superblock,
    shut_down_pool,
    wipe,
)

SPARE = os.environ["DISK_SPARE"]
SMALL = os.environ["DISK_SMALL"]


def daemon_error(*options: str, root: Path = ROOT, socket: Path = Path("/run/other.sock")) -> str:
    """A daemon that must not start."""
    result = run(
        "convoy", "--socket", socket, "daemon", "--root", root, *options, check=False, timeout=30
    )  # fmt: skip
    if result.returncode != 1:
        raise AssertionError(f"{options}: status {result.returncode}: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)["Error"]


class NewPool(unittest.TestCase):
    """Options of a first start."""

    def setUp(self) -> None:
        wipe(DATA, META, SPARE)
        remove_tree(ROOT)

    def refused(self, sentence: str, *options: str) -> None:
        before = dm_devices()
        self.assertIn(sentence, daemon_error(*options))
        self.assertFalse(ROOT.exists(), "the root was made")
        self.assertEqual(dm_devices(), before)

    def test_options_that_are_none(self) -> None:
        self.refused("dm.datadev is required")
        self.refused("dm.metadatadev is required", "--driver-opts", f"dm.datadev={DATA}")
        self.refused("unknown driver option 'dm.nonsense'", *pool_options(nonsense="1"))
        self.refused("multiple of 128", *pool_options(thinpoolblocksize="129"))
        self.refused("choose ext4 or xfs", *pool_options(fs="btrfs"))
        for percent in ("0", "95", "half", "-1"):
            self.refused("give a percentage from 1 to 94", *pool_options(lowwatermark=percent))
        self.refused("error, or queue", *pool_options(whenfull="wait"))
        self.refused("not a multiple of the pool's blocks", *pool_options(defaultvolumesize="100000"))
        self.refused("only the driver devicemapper", "--drivers", "ebs", *pool_options())
        self.refused("--log-format", "--log-format", "xml", *pool_options())
        self.refused("no such group", "--socket-group", "nobodys", *pool_options())
        self.refused("--cmd-timeout", "--cmd-timeout", "soon", *pool_options())
        self.refused("is not a mount namespace", "--mnt-ns", "/etc/passwd", *pool_options())
        self.refused("absolute path", *pool_options(data="vda"))
        self.assertIn("absolute path", daemon_error(*pool_options(), root=Path("relative")))

    def test_devices_that_will_not_do(self) -> None:
        self.refused("does not exist", *pool_options(data="/dev/nothing"))
        self.refused("not a block device", *pool_options(data="/etc/passwd"))
        self.refused("not a block device", *pool_options(meta="/dev/null"))
        self.refused("are the same device", *pool_options(meta=DATA))
        self.refused("too small", *pool_options(meta=SMALL))
        self.refused("too small", *pool_options(data=SMALL))

    def test_devices_in_use(self) -> None:
        run("mkfs.ext4", "-q", SPARE)
        Path("/mnt/spare").mkdir(exist_ok=True)
        run("mount", SPARE, "/mnt/spare")
        self.refused("is in use", *pool_options(data=SPARE))
        run("umount", "/mnt/spare")
        run("dmsetup", "create", "holder", "--table", f"0 8 linear {SPARE} 0")
        self.refused("is in use", *pool_options(meta=SPARE))
        run("dmsetup", "remove", "holder")

    def test_devices_with_data_of_others(self) -> None:
        run("mkfs.ext4", "-q", SPARE)
        before = device_digest(SPARE)
        self.refused("holds ext4", *pool_options(data=SPARE))
        self.refused("holds ext4", *pool_options(meta=SPARE))
        self.assertEqual(device_digest(SPARE), before)
        wipe(SPARE)
        subprocess.run(["sfdisk", "-q", SPARE], input="label: gpt\n,\n", text=True, check=True, capture_output=True)
        self.refused("holds gpt", *pool_options(data=SPARE))
        wipe(SPARE)
        with Path(SPARE).open("r+b") as device:
            device.write(b"something")
        self.refused("its first 4 KiB are not zero", *pool_options(meta=SPARE))

        Daemon(pool=["--force-new-pool", *pool_options(meta=SPARE)]).stop()
        shut_down_pool()
        remove_tree(ROOT)
        # Its volumes, its metadata, and the one in place of the other.
        self.refused("holds the volumes of pool", *pool_options(meta=SPARE))
        wipe(DATA, META)
        self.refused("metadata of a thin pool that this root doesn't know", *pool_options(meta=SPARE))
        self.refused(f"dm.datadev={SPARE} holds the metadata of a thin pool", *pool_options(data=SPARE))

    def test_names_under_dev_mapper_that_are_taken(self) -> None:
        run("dmsetup", "create", "taken", "--table", f"0 8 linear {SPARE} 0")
        self.assertIn("is no thin pool", daemon_error(*pool_options(thinpoolname="taken")))
        run("dmsetup", "remove", "taken")


class KnownPool(PoolTest):
    """Options of a later start."""

    def test_contradictions_and_strangers(self) -> None:
        other = Path("/run/other.sock")
        self.assertIn("another daemon uses the root", daemon_error())
        self.assertIn("another daemon listens", daemon_error_on_taken_socket())
        self.daemon.stop()
        self.assertIn("has its pool already", daemon_error("--force-new-pool"))
        self.assertIn("can't write the log file", daemon_error("--log", "/dev/null/log"))
        Path("/tmp/file").touch()
        self.assertIn("exists and is no socket", daemon_error(socket=Path("/tmp/file")))
        self.assertIn("is longer than 107 characters", daemon_error(socket=Path("/tmp") / ("x" * 200)))
        self.assertIn("thinpoolname=other contradicts", daemon_error("--driver-opts", "dm.thinpoolname=other"))
        self.assertIn("contradicts this root", daemon_error("--driver-opts", "dm.thinpoolblocksize=128"))
        self.assertIn("contradicts", daemon_error("--driver-opts", f"dm.datadev={SPARE}"))
        shut_down_pool()
        # The right size, but not this pool's data.
        data = int(run("blockdev", "--getsize64", DATA).stdout)
        run("truncate", "-s", str(data), "/tmp/other-data")
        loop = run("losetup", "--find", "--show", "/tmp/other-data").stdout.strip()
        self.assertIn("does not hold the data of this root's pool", daemon_error("--driver-opts", f"dm.datadev={loop}"))
        run("losetup", "-d", loop)
        Path("/tmp/other-data").unlink()
        # The right size, but not this pool's metadata.
        size = int(run("blockdev", "--getsize64", META).stdout)
        run("truncate", "-s", str(size), "/tmp/other-meta")
        loop = run("losetup", "--find", "--show", "/tmp/other-meta").stdout.strip()
        self.assertIn("holds no thin pool's metadata", daemon_error("--driver-opts", f"dm.metadatadev={loop}"))
        run("dd", f"if={META}", f"of={loop}", "bs=1M", "conv=fsync")
        self.daemon.start("--driver-opts", f"dm.metadatadev={loop}")
        convoy("create", "later", "--size", "64M")
        self.daemon.stop()
        shut_down_pool()
        # An old copy of the metadata is another state of the pool.
        self.assertIn("another state of it", daemon_error("--driver-opts", f"dm.metadatadev={META}"))
        run("dd", f"if={loop}", f"of={META}", "bs=1M", "conv=fsync")
        run("losetup", "-d", loop)
        Path("/tmp/other-meta").unlink()
        self.assertIn(f"{loop} is not there", daemon_error())
        self.daemon.start("--driver-opts", f"dm.metadatadev={META}")
        self.assertEqual(list(convoy_json("list")), ["later"])
        self.assertFalse(other.exists())

    def test_a_pool_that_needs_a_check_or_is_not_the_one_of_its_name(self) -> None:
        self.daemon.stop()
        run("truncate", "-s", run("blockdev", "--getsize64", DATA).stdout.strip(), "/tmp/other-data")
        other = run("losetup", "--find", "--show", "/tmp/other-data").stdout.strip()
        self.assertIn("contradicts the running pool", daemon_error("--driver-opts", f"dm.datadev={other}"))
        run("losetup", "-d", other)
        Path("/tmp/other-data").unlink()
        shut_down_pool()
        # As the kernel sets it when it could not write the metadata: superblock.h.
        with Path(META).open("r+b") as device:
            block = bytearray(device.read(4096))
            good = bytes(block)
            block[4] |= 1
            device.seek(0)
            device.write(seal_superblock(block))
            os.fsync(device.fileno())
        self.assertIn(f"run thin_check --clear-needs-check-flag {META}", daemon_error())
        self.assertEqual(dm_devices(), [])
        run("thin_check", "--clear-needs-check-flag", META)
        self.assertEqual(Path(META).read_bytes()[:4096], good)
        # Somebody else's pool has the name.
        sectors = int(run("blockdev", "--getsz", DATA).stdout)
        run("dmsetup", "create", "convoy-pool", "--table", f"0 {sectors} thin-pool {META} {DATA} 4096 0 1 no_discard_passdown")
        self.assertIn("that is not this pool (its UUID is '')", daemon_error())
        run("dmsetup", "remove", "convoy-pool")
        self.daemon.start()

    def test_a_volume_of_which_something_is_active_elsewhere_is_not_deleted_by_half(self) -> None:
        convoy("create", "db", "--size", "64M")
        for name in ("s1", "s2"):
            convoy("snapshot", "create", "db", "--name", name)
        thin_id = convoy_json("snapshot", "inspect", "s2")["DriverInfo"]["DevID"]
        run("dmsetup", "create", "compared", "--table", f"0 {64 * MIB // 512} thin /dev/mapper/convoy-pool {thin_id}")
        self.assertIn("snapshot 's2' is active as /dev/mapper/compared, too", convoy_error("delete", "db"))
        self.assertEqual(set(convoy_json("inspect", "db")["Snapshots"]), {"s1", "s2"})
        self.assertEqual(dm_devices(), ["compared", "convoy-pool", "db"])
        run("dmsetup", "remove", "compared")
        convoy("delete", "db")

    def test_another_root_with_a_pool_of_that_name(self) -> None:
        run("truncate", "-s", "4M", "/tmp/metadata")
        metadata = run("losetup", "--find", "--show", "/tmp/metadata").stdout.strip()
        self.addCleanup(run, "losetup", "-d", metadata)
        error = daemon_error(*pool_options(SPARE, metadata), root=Path("/tmp/other-root"))
        self.assertIn("a thin pool named convoy-pool is active already; choose another dm.thinpoolname", error)

    def test_new_defaults_are_taken(self) -> None:
        self.daemon.stop()
        self.daemon.start("--driver-opts", "dm.fs=xfs", "--driver-opts", "dm.defaultvolumesize=400M")
        convoy("create", "x")
        info = convoy_json("inspect", "x")["DriverInfo"]
        self.assertEqual((info["Filesystem"], info["Size"]), ("xfs", str(400 << 20)))
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(convoy_json("info")["devicemapper"]["Filesystem"], "xfs")

    def test_new_settings_are_taken_by_the_running_pool(self) -> None:
        def settings() -> tuple[int, bool]:
            """From how many free blocks on it warns, and whether writes to a full pool fail."""
            table = run("dmsetup", "table", "convoy-pool").stdout.split()
            return int(table[6]), "error_if_no_space" in table

        blocks = int(run("blockdev", "--getsize64", DATA).stdout) // (2 << 20)
        self.assertEqual(settings(), (blocks // 5, True))
        convoy("create", "db", "--size", "64M")
        convoy("mount", "db")
        self.daemon.stop()
        self.daemon.start("--driver-opts", "dm.lowwatermark=50", "--driver-opts", "dm.whenfull=queue")
        self.assertEqual(settings(), (blocks // 2, False))
        self.assertEqual(convoy_json("info")["devicemapper"]["LowWatermark"], "50")
        self.daemon.stop()
        self.daemon.start()
        self.assertEqual(settings(), (blocks // 2, False))
        self.assertNotIn("SUSPENDED", run("dmsetup", "info").stdout)


def daemon_error_on_taken_socket() -> str:
    """A new root and new devices, but the socket of a running daemon."""
    run("truncate", "-s", "64M", "/tmp/d", "/tmp/m")
    data = run("losetup", "--find", "--show", "/tmp/d").stdout.strip()
    meta = run("losetup", "--find", "--show", "/tmp/m").stdout.strip()
    options = pool_options(data, meta, thinpoolname="second-pool")
    error = daemon_error(*options, root=Path("/tmp/second"), socket=SOCKET)
    if "second-pool" in dm_devices():
        run("dmsetup", "remove", "second-pool")
    run("losetup", "-d", data, meta)
    return error


class Commands(PoolTest):
    def refused(self, sentence: str, *words: str) -> None:
        before = (convoy_json("list"), dm_devices())
        self.assertIn(sentence, convoy_error(*words))
        self.assertEqual((convoy_json("list"), dm_devices()), before)

    def test_volumes(self) -> None:
        convoy("create", "db", "--size", "64M")
        for name in ("../../evil", ".hidden", "a b", "x" * 65, "a/b", "ä"):
            self.refused("can't be the name of a volume", "create", name, "--size", "64M")
        self.refused("it is a UUID", "create", convoy_json("inspect", "db")["UUID"], "--size", "64M")
        for name in ("control", "convoy-pool", "convoy-pool-0190a5b0-0000-7000-8000-000000000000"):
            self.refused("taken under /dev/mapper", "create", name, "--size", "64M")
        self.refused("a volume named 'db' exists already", "create", "db", "--size", "64M")
        self.refused("is not a multiple of the pool's blocks", "create", "x", "--size", "65M")
        self.refused("is not a size", "create", "x", "--size", "big")
        self.refused("can't have 0 bytes", "create", "x", "--size", "0")
        self.refused("give a size up to", "create", "x", "--size", "2000T")
        self.refused("too small for ext4", "create", "x", "--size", "2M")
        self.refused("no driver 'ebs'", "create", "x", "--driver", "ebs")
        self.refused("no volume 'x'", "delete", "x")
        self.refused("no volume 'x'", "inspect", "x")
        self.refused("no volume 'x'", "mount", "x")
        self.refused("no volume 'x'", "umount", "x")
        self.refused("not an absolute path", "mount", "db", "--mountpoint", "here")
        self.refused("/nowhere is not an existing directory", "mount", "db", "--mountpoint", "/nowhere")
        mountpoint = convoy("mount", "db")
        self.refused(f"mounted already, at {mountpoint}", "mount", "db", "--mountpoint", "/mnt")
        self.refused(f"is mounted at {mountpoint}; unmount it first", "delete", "db")
        self.assertEqual(convoy("mount", "db", "--mountpoint", mountpoint + "/"), mountpoint)
        convoy("create", "over", "--size", "64M")
        self.refused("something else is mounted at", "mount", "over", "--mountpoint", mountpoint)
        run("mount", "/dev/mapper/over", mountpoint)
        self.refused("something else is mounted over volume 'db'", "umount", "db")
        run("umount", mountpoint)
        convoy("delete", "over")
        convoy("umount", "db")
        allow_kernel("ext4: Bad value for 'data'")
        convoy("create", "odd", "--size", "64M", "--mount-options", "data=nonsense")
        self.refused("can't be mounted with the options 'data=nonsense'", "mount", "odd")
        convoy("delete", "odd")
        self.assertEqual(convoy("umount", "db"), "")  # also when it was not mounted
        with Path("/dev/mapper/db").open("rb"):
            self.refused("is in use", "delete", "db")
        # Goes on after a failure and fails at the end.
        convoy("create", "other", "--size", "64M")
        self.assertIn("no volume 'nothing'", convoy_error("delete", "nothing", "other"))
        self.assertEqual(list(convoy_json("list")), ["db"])

    def test_ignored_options_are_warned_of(self) -> None:
        result = run("convoy", "-s", SOCKET, "create", "db", "--size", "64M", "--id", "1", "--type", "t", "--iops", "9", "--vm")
        for option in ("--id", "--type", "--iops", "--vm"):
            self.assertIn(f"ignores {option}", result.stderr)

    def test_snapshots(self) -> None:
        convoy("create", "db", "--size", "64M")
        self.refused("no volume 'x'", "snapshot", "create", "x")
        self.refused("can't be the name of a snapshot", "snapshot", "create", "db", "--name", "a/b")
        self.refused("a volume named 'db' exists already", "snapshot", "create", "db", "--name", "db")
        convoy("snapshot", "create", "db", "--name", "s1")
        self.refused("a snapshot named 's1' exists already", "snapshot", "create", "db", "--name", "s1")
        self.refused("a snapshot named 's1' exists already", "create", "s1", "--size", "64M")
        self.refused("no snapshot 'x'", "snapshot", "delete", "x")
        self.refused("no snapshot 'db'", "snapshot", "inspect", "db")
        self.refused("no volume 's1'", "inspect", "s1")

    def test_backups(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("snapshot", "create", "db", "--name", "s1")
        self.refused("no snapshot 'x'", "backup", "create", "x", "--dest", self.url)
        self.refused("/tmp/nowhere", "backup", "create", "s1", "--dest", "vfs:///tmp/nowhere/")
        self.refused("relative", "backup", "create", "s1", "--dest", "vfs://relative/path")
        self.refused("ftp", "backup", "create", "s1", "--dest", "ftp://host/")
        self.refused("s3", "backup", "create", "s1", "--dest", "s3://bucket@region/")
        self.assertEqual(convoy("backup", "list", self.url), "{}")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        self.refused("backup's volume has 67108864", "create", "copy", "--backup", url, "--size", "128M")
        self.refused("a volume named 'db' exists", "create", "db", "--backup", url)
        unknown = url.replace(url.split("backup=")[1][:36], "0190a5b0-0000-7000-8000-000000000000")
        for command in (("backup", "inspect"), ("backup", "delete"), ("create", "copy", "--backup")):
            self.refused("backup", *command, unknown)
            self.refused("backup", *command, self.url)
            self.refused("nonsense", *command, "nonsense")
        self.assertEqual(list(convoy_json("backup", "list", self.url)), [url])
        # A destination that held a store and is empty now is probably not mounted.
        run("mv", self.destination, "/tmp/away")
        self.destination.mkdir()
        self.refused("is it mounted", "backup", "create", "s1", "--dest", self.url)
        self.assertEqual(list(self.destination.iterdir()), [])
        self.destination.rmdir()
        # So is one that holds another.
        Path("/tmp/another").mkdir()
        convoy("backup", "create", "s1", "--dest", "vfs:///tmp/another/")
        run("mv", "/tmp/another", self.destination)
        self.refused("and now holds", "backup", "create", "s1", "--dest", self.url)
        remove_tree(self.destination)
        run("mv", "/tmp/away", self.destination)

    def test_a_pool_that_others_change(self) -> None:
        def message(text: str) -> None:
            run("dmsetup", "message", "convoy-pool", "0", text)

        allow_kernel("Creation of new .* failed|metadata snapshot already exists|reserve_metadata_snap message failed")
        convoy("create", "db", "--size", "64M")
        convoy("snapshot", "create", "db", "--name", "s1")
        backup = ("backup", "create", "s1", "--dest", self.url)
        message("reserve_metadata_snap")
        self.refused("another program holds the pool's metadata snapshot", *backup)
        message("release_metadata_snap")

        thin_id = int(convoy_json("snapshot", "inspect", "s1")["DriverInfo"]["DevID"])
        message(f"create_thin {thin_id + 1}")
        self.refused("that the catalog doesn't know; try again", "create", "other", "--size", "64M")
        convoy("create", "other", "--size", "64M")
        message(f"delete {thin_id + 1}")

        message(f"delete {thin_id}")
        message(f"create_thin {thin_id}")
        self.refused(f"thin device {thin_id} is no longer snapshot 's1'", *backup)

        transaction = int(run("dmsetup", "status", "convoy-pool").stdout.split()[3])
        message(f"set_transaction_id {transaction} {transaction + 9}")
        self.refused(f"the pool is at transaction {transaction + 9} and the catalog at {transaction}", "delete", "other")
        message(f"set_transaction_id {transaction + 9} {transaction}")

    def test_requests_that_are_none(self) -> None:
        for body, status, sentence in (
            ("x" * ((1 << 20) + 1), 413, "larger than 1048576 bytes"),
            ('{"Name": ', 400, "JSON"),
            ("[" * 100_000, 400, "JSON"),
            ('{"Name": "\\ud800"}', 400, "JSON"),
        ):
            with contextlib.closing(DockerCall()) as connection:
                connection.request("POST", "/v1/volume", body)
                response = connection.getresponse()
                self.assertEqual(response.status, status, body[:20])
                self.assertIn(sentence, json.loads(response.read())["Error"])
        self.assertEqual(convoy("list"), "{}")

    def test_the_command_line(self) -> None:
        for words, part in (
            ((), "give a command"),
            (("fly",), "fly"),
            (("backup",), "list"),
            (("snapshot", "fly"), "fly"),
            (("create", "--colour"), "--colour"),
            (("mount",), "VOLUME"),
            (("backup", "create", "s1"), "--dest"),
        ):
            self.assertIn(part, convoy_error(*words))
        self.assertIn("no daemon answers on /run/none.sock", convoy_error("list", socket=Path("/run/none.sock")))
        stranger = run("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "convoy", "-s", SOCKET, "list", check=False)
        self.assertEqual(stranger.returncode, 1)
        self.assertIn("is not yours to use", stranger.stderr)

    def test_small_xfs_volumes(self) -> None:
        self.refused("too small for xfs: a volume needs at least 300", "create", "x", "--fs", "xfs", "--size", "200M")


if __name__ == "__main__":
    unittest.main(verbosity=2)
