"""Power cuts: the machine is killed at random moments of a random life of volumes, snapshots and backups, and boots again with its
disks. What was answered with success is there, what was not is whole or gone, what was fsynced is there, and nothing is left over.

The root, the destination and the pool are on disks. What users were told is in a journal on the host, which survives: a line before
each operation and one after it. A volume, heart, is written to all the while, line by line with fsync; each line that is on the
disk is counted on the host, too.
"""
# budget: 1500
# long budget: 20000
# machine: --memory 1G --disk data=2G --disk meta=64M --disk root=256M --disk store=2G

import hashlib
import json
import os
import random
import shutil
import threading
import time
import unittest
from pathlib import Path

from promises import check_nothing_is_left, files_of, looking_into, sync_file_system
from support import (
    DATA, LOG, META, MIB, ROOT, Daemon, allow_kernel, convoy, convoy_json, file_digests, pool_options, run, shut_down_pool,
    snapshot_device, thin_check, wipe,
)

CUTS = 300 if os.environ.get("CONVOY_TEST_LONG") else 6
BOOT = int(os.environ.get("VM_BOOT", "1"))
OUT = Path(os.environ["VM_OUT"])
DESTINATION = Path("/mnt/store")
URL = f"vfs://{DESTINATION}/"
SEED_FILE, JOURNAL, BEATS, TALLY = OUT / "seed", OUT / "journal", OUT / "beats", OUT / "tally"
if not SEED_FILE.exists():
    SEED_FILE.write_text(os.environ.get("CONVOY_SEED") or str(random.randrange(1000)))
SEED = int(SEED_FILE.read_text())
# The moments of the cuts and the operations; each boot has dice of its own.
DICE = random.Random(f"{SEED} {BOOT}")


def write_down(file: Path, text: str) -> None:
    """On the host's disk when it returns."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, text.encode())
    os.fsync(descriptor)
    os.close(descriptor)


class Model:
    """What there is to be, by what users were told."""

    def __init__(self) -> None:
        self.volumes: dict[str, dict] = {}  # mounted, files (name -> seed), snapshots (name -> state)
        self.backups: dict[str, dict] = {}  # by URL: a state
        self.made = 0

    @staticmethod
    def state_of(volume: dict) -> dict:
        return {"files": dict(volume["files"])}

    def apply(self, operation: dict, result: dict) -> None:
        self.made += 1
        match operation:
            case {"do": "create", "name": name}:
                self.volumes[name] = {"mounted": False, "files": {}, "snapshots": {}}
            case {"do": "delete", "name": name}:
                del self.volumes[name]
            case {"do": "mount" | "umount" as what, "name": name}:
                self.volumes[name]["mounted"] = what == "mount"
            case {"do": "write", "name": name, "file": file}:
                self.volumes[name]["files"][file] = operation["seed"]
            case {"do": "snapshot", "volume": volume, "name": name}:
                self.volumes[volume]["snapshots"][name] = self.state_of(self.volumes[volume]) | result
            case {"do": "delete snapshot", "volume": volume, "name": name}:
                del self.volumes[volume]["snapshots"][name]
            case {"do": "backup", "volume": volume, "name": name}:
                self.backups[result["url"]] = dict(self.volumes[volume]["snapshots"][name])
            case {"do": "delete backup", "url": url}:
                del self.backups[url]
            case {"do": "restore", "url": url, "name": name}:
                self.volumes[name] = {"mounted": False, "files": dict(self.backups[url]["files"]), "snapshots": {}}
            case {"do": "restore into", "url": url, "name": name}:
                self.volumes[name]["files"] = dict(self.backups[url]["files"])


def told_so_far() -> tuple[Model, dict | None]:
    """The model, and the operation that was under way when the power was cut."""
    model, pending = Model(), None
    for line in JOURNAL.read_text().splitlines() if JOURNAL.exists() else []:
        entry = json.loads(line)
        if "begin" in entry:
            pending = entry["begin"]
        else:
            assert pending is not None
            if entry["end"] is not None:
                model.apply(pending, entry["end"])
            pending = None
    return model, pending


def content(seed: int) -> bytes:
    generator = random.Random(seed)
    return generator.randbytes(generator.randrange(1, 3 * MIB))


def digest_of(seed: int) -> str:
    return hashlib.sha256(content(seed)).hexdigest()


def write_durably(file: Path, seed: int) -> None:
    with file.open("wb") as output:
        output.write(content(seed))
        output.flush()
        os.fsync(output.fileno())
    sync_file_system(file.parent)


def beats() -> int:
    """How many lines of the heart are known to be on the disk."""
    return len(BEATS.read_bytes()) if BEATS.exists() else 0


def beats_in(directory: Path) -> int:
    """Of a file system of the heart: each line is the number of it, and none is missing before the last."""
    file = directory / "beat"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    if lines != [str(number) for number in range(1, len(lines) + 1)]:
        raise AssertionError(f"{directory}: lines are missing among {len(lines)}")
    return len(lines)


class Heart(threading.Thread):
    def __init__(self, mountpoint: Path) -> None:
        super().__init__(daemon=True)
        self.mountpoint, self.stopping = mountpoint, threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.beat()
        except BaseException as failure:  # noqa: BLE001: told by who stops it
            self.failure = failure

    def beat(self) -> None:
        last = beats_in(self.mountpoint)
        # Lines of before the cut that were on the disk before anybody was told.
        write_down(BEATS, "." * (last - beats()))
        with (self.mountpoint / "beat").open("a") as file:
            while not self.stopping.is_set():
                last += 1
                file.write(f"{last}\n")
                file.flush()
                os.fsync(file.fileno())
                write_down(BEATS, ".")
                time.sleep(0.02)

    def stop(self) -> None:
        self.stopping.set()
        self.join(timeout=60)
        if self.is_alive():
            raise AssertionError("the heart's writer hangs")
        if self.failure:
            raise self.failure


class PowerCuts(unittest.TestCase):
    def setUp(self) -> None:
        allow_kernel("thin: Deletion of thin device [0-9]+ failed|reached low water mark")
        ROOT.mkdir(parents=True, exist_ok=True)
        DESTINATION.mkdir(parents=True, exist_ok=True)
        if BOOT == 1:
            wipe(DATA, META)
            for disk in ("ROOT", "STORE"):
                run("mkfs.ext4", "-q", "-F", os.environ[f"DISK_{disk}"])
        else:
            thin_check()
        run("mount", os.environ["DISK_ROOT"], ROOT)
        run("mount", os.environ["DISK_STORE"], DESTINATION)
        self.addCleanup(lambda: shutil.copy(LOG, OUT / f"daemon-{BOOT}.log"))
        self.daemon = Daemon(pool=pool_options(fs="ext4"))

    def test_life_goes_on(self) -> None:
        self.model, pending = told_so_far()
        if BOOT > 1:
            self.check(pending)
            write_down(TALLY, f"{BOOT - 1}: {'between operations' if pending is None else pending['do']}\n")
            if pending and pending["do"] == "write":
                self.do(pending)  # so that it is known what the file holds
        if BOOT > CUTS:
            self.tear_down()
            return
        if "heart" not in self.model.volumes:
            self.do({"do": "create", "name": "heart"})
        if not self.model.volumes["heart"]["mounted"]:
            self.do({"do": "mount", "name": "heart"})
        heart = Heart(self.mountpoint("heart"))
        heart.start()
        self.cut_later(DICE.uniform(0.2, 12))
        while True:
            self.do(self.next_operation())
            if heart.failure:
                raise heart.failure

    @staticmethod
    def cut_later(seconds: float) -> None:
        def cut() -> None:
            time.sleep(seconds)
            (OUT / "power-cut").touch()

        threading.Thread(target=cut, daemon=True).start()

    # --- Operations ---

    def mountpoint(self, volume: str) -> Path:
        return Path(convoy_json("inspect", volume)["MountPoint"])

    def next_operation(self) -> dict:
        model, dice = self.model, DICE
        volumes = [name for name in model.volumes if name != "heart"]
        mounted = [name for name in volumes if model.volumes[name]["mounted"]]
        idle = [name for name in volumes if not model.volumes[name]["mounted"]]
        snapshots = [(name, each) for name, volume in model.volumes.items() for each in volume["snapshots"]]
        backups = list(model.backups)
        ordinary = [url for url in backups if "least" not in model.backups[url]]
        fresh = f"n{BOOT}-{model.made}"
        choices: list[tuple[float, dict]] = [(2 if len(volumes) < 5 else 0, {"do": "create", "name": fresh})]

        def add(weight: float, things: list, make) -> None:
            if things:
                choices.append((weight, make(dice.choice(things))))

        add(1 if len(volumes) > 2 else 0.2, idle, lambda name: {"do": "delete", "name": name})
        add(2, idle, lambda name: {"do": "mount", "name": name})
        add(1, mounted, lambda name: {"do": "umount", "name": name})
        file, seed = f"f{dice.randrange(4)}", dice.randrange(1 << 30)
        add(4, mounted, lambda name: {"do": "write", "name": name, "file": file, "seed": seed})
        if len(snapshots) < 12:
            add(3, list(model.volumes), lambda name: {"do": "snapshot", "volume": name, "name": fresh})
        add(1 if len(snapshots) > 6 else 0.3, snapshots, lambda each: {"do": "delete snapshot", "volume": each[0], "name": each[1]})
        if len(backups) < 10:
            add(3, snapshots, lambda each: {"do": "backup", "volume": each[0], "name": each[1]})
        add(1 if len(backups) > 5 else 0.3, backups, lambda url: {"do": "delete backup", "url": url})
        if len(volumes) < 6:
            add(1, ordinary, lambda url: {"do": "restore", "url": url, "name": fresh})
        if idle:
            add(1, ordinary, lambda url: {"do": "restore into", "url": url, "name": dice.choice(idle)})
        return dice.choices([choice for _, choice in choices], [weight for weight, _ in choices])[0]

    def do(self, operation: dict) -> None:
        write_down(JOURNAL, json.dumps({"begin": operation}) + "\n")
        result = self.act(operation)
        write_down(JOURNAL, json.dumps({"end": result}) + "\n")
        self.model.apply(operation, result)

    def act(self, operation: dict) -> dict:
        match operation:
            case {"do": "create", "name": name}:
                convoy("create", name, "--size", "32M")
            case {"do": "delete" | "mount" | "umount" as what, "name": name}:
                convoy(what, name)
            case {"do": "write", "name": name, "file": file}:
                write_durably(self.mountpoint(name) / file, operation["seed"])
            case {"do": "snapshot", "volume": volume, "name": name}:
                least = beats()
                convoy("snapshot", "create", volume, "--name", name)
                return {"least": least, "most": beats() + 1} if volume == "heart" else {}
            case {"do": "delete snapshot", "name": name}:
                convoy("snapshot", "delete", name)
            case {"do": "backup", "name": name}:
                return {"url": convoy("backup", "create", name, "--dest", URL)}
            case {"do": "delete backup", "url": url}:
                convoy("backup", "delete", url)
            case {"do": "restore", "url": url, "name": name}:
                convoy("create", name, "--backup", url)
            case {"do": "restore into", "url": url, "name": name}:
                convoy("restore", url, "--into", name)
        return {}

    # --- Checks ---

    def check(self, pending: dict | None) -> None:
        check_nothing_is_left(self)
        found = convoy_json("list")
        backups = json.loads(convoy("backup", "list", URL)) if (DESTINATION / "convoy").exists() else {}
        self.settle(pending, found, backups)
        self.assertEqual(sorted(found), sorted(self.model.volumes))
        self.assertEqual(sorted(backups), sorted(self.model.backups))
        unsure = pending["file"] if pending and pending["do"] == "write" else None
        for name, volume in self.model.volumes.items():
            mountpoint = found[name]["MountPoint"]
            self.assertEqual(bool(mountpoint), volume["mounted"], name)
            here = unsure if pending and pending.get("name") == name else None
            if mountpoint:
                self.check_content(Path(mountpoint), volume, here)
            else:
                run("fsck.ext4", "-fn", f"/dev/mapper/{name}")
                with looking_into(f"/dev/mapper/{name}") as directory:
                    self.check_content(directory, volume, here)
            self.assertEqual(sorted(found[name]["Snapshots"]), sorted(volume["snapshots"]))
            for snapshot, state in volume["snapshots"].items():
                with snapshot_device(snapshot) as device, looking_into(device) as directory:
                    self.check_content(directory, state)
        if "heart" in self.model.volumes and self.model.volumes["heart"]["mounted"]:
            self.assertGreaterEqual(beats_in(self.mountpoint("heart")), beats())
        if backups:
            self.assertEqual(convoy_json("backup", "verify", URL)["Damaged"], [])
            url = DICE.choice(sorted(self.model.backups))
            convoy("create", "looked-at", "--backup", url)
            with looking_into("/dev/mapper/looked-at") as directory:
                self.check_content(directory, self.model.backups[url])
            convoy("delete", "looked-at")

    def settle(self, pending: dict | None, found: dict, backups: dict) -> None:
        """Whether what was under way was done, as far as it can be seen; the journal says so from now on."""
        if pending is None:
            return
        result: dict | None = {}
        name = pending.get("name", "")
        match pending["do"]:
            case "create" | "restore":
                done = name in found
            case "delete":
                done = name not in found
            case "mount" | "umount" as what:
                done = bool(found[name]["MountPoint"]) == (what == "mount")
            case "snapshot":
                done = name in found[pending["volume"]]["Snapshots"]
                # It was taken before the cut, and after what was known when it was asked for.
                result = {"least": 0, "most": 1 << 60} if pending["volume"] == "heart" else {}
            case "delete snapshot":
                done = name not in found[pending["volume"]]["Snapshots"]
            case "backup":
                new = set(backups) - set(self.model.backups)
                self.assertLessEqual(len(new), 1)
                done = bool(new)
                result = {"url": new.pop()} if new else None
            case "delete backup":
                done = pending["url"] not in backups
            case "restore into":
                restored = self.model.backups[pending["url"]]["files"]
                done = {file: digest_of(seed) for file, seed in restored.items()} == self.files(name)
            case _:
                done = False  # a write: its file is looked over
        write_down(JOURNAL, json.dumps({"end": result if done else None}) + "\n")
        if done:
            assert result is not None
            self.model.apply(pending, result)

    @staticmethod
    def files(volume: str) -> dict[str, str]:
        return {name: digest for name, digest in files_of(f"/dev/mapper/{volume}").items() if not name.startswith("lost+found")}

    def check_content(self, directory: Path, state: dict, unsure: str | None = None) -> None:
        if "least" in state:
            self.assertTrue(state["least"] <= beats_in(directory) <= state["most"], f"{directory}: {state}")
        found = file_digests(directory)
        for name, seed in state["files"].items():
            if name != unsure:
                self.assertEqual(found.get(name), digest_of(seed), f"{directory}/{name}")
        self.assertLessEqual(set(found), {*state["files"], "beat", unsure})

    def tear_down(self) -> None:
        for name, volume in convoy_json("list").items():
            if volume["MountPoint"]:
                convoy("umount", name)
            run("fsck.ext4", "-fn", f"/dev/mapper/{name}")
            convoy("delete", name)
        check_nothing_is_left(self)
        self.daemon.stop()
        shut_down_pool()
        thin_check()
        run("umount", ROOT)
        run("umount", DESTINATION)
        for disk in ("ROOT", "STORE"):
            run("fsck.ext4", "-fn", os.environ[f"DISK_{disk}"])
        tally = TALLY.read_text().splitlines()
        inside = [line for line in tally if "between" not in line]
        print(f"CONVOY_SEED={SEED}: {len(tally)} cuts, {len(inside)} of them inside an operation:", *tally, sep="\n  ", flush=True)
        self.assertTrue(inside)


if __name__ == "__main__":
    unittest.main(verbosity=2)
