"""A random life of volumes, snapshots and backups, and what there is to be by what users were told: what the campaigns share that cut
the power, replay the disks' writes, and compare with a model."""

import hashlib
import json
import os
import random
import threading
import unittest
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from promises import check_file_system, check_nothing_is_left, files_of, looking_into, sync_file_system
from support import META, MIB, convoy, convoy_json, file_digests, snapshot_device

# A volume that somebody writes to all the while, beside the operations.
HEART = "heart"


class Model:
    """What there is to be, by what users were told."""

    def __init__(self) -> None:
        self.volumes: dict[str, dict] = {}  # mounted, files (name -> seed), snapshots (name -> state)
        self.backups: dict[str, dict] = {}  # by URL: a state
        self.made = 0
        self.restored: set[str] = set()  # and not mounted since

    @staticmethod
    def state_of(volume: dict) -> dict:
        return {"files": dict(volume["files"])}

    def apply(self, operation: dict, result: dict) -> None:
        self.made += 1
        match operation:
            case {"do": "create", "name": name}:
                self.volumes[name] = {"fs": operation.get("fs", "ext4"), "mounted": False, "files": {}, "snapshots": {}}
            case {"do": "delete", "name": name}:
                del self.volumes[name]
                self.restored.discard(name)
            case {"do": "mount" | "umount" as what, "name": name}:
                self.volumes[name]["mounted"] = what == "mount"
                self.restored.discard(name)
            case {"do": "write", "name": name, "file": file}:
                self.volumes[name]["files"][file] = operation["seed"]
            case {"do": "snapshot", "volume": volume, "name": name}:
                self.volumes[volume]["snapshots"][name] = self.state_of(self.volumes[volume]) | result
            case {"do": "delete snapshot", "volume": volume, "name": name}:
                del self.volumes[volume]["snapshots"][name]
            case {"do": "backup", "volume": volume, "name": name}:
                state = self.volumes[volume]["snapshots"][name]
                self.backups[result["url"]] = state | {"fs": self.volumes[volume]["fs"]}
            case {"do": "delete backup", "url": url}:
                del self.backups[url]
            case {"do": "restore", "url": url, "name": name}:
                backup = self.backups[url]
                self.volumes[name] = {"fs": backup["fs"], "mounted": False, "files": dict(backup["files"]), "snapshots": {}}
                self.restored.add(name)
            case {"do": "restore into", "url": url, "name": name}:
                self.volumes[name]["files"] = dict(self.backups[url]["files"])
                self.restored.add(name)


def told(entries: Iterable[dict]) -> tuple[Model, list[dict]]:
    """The model by what a journal has, and the operations that are under way at its end."""
    model, pending = Model(), {}
    for entry in entries:
        if "begin" in entry:
            pending[entry["lane"]] = entry["begin"]
        else:
            operation = pending.pop(entry["lane"])
            if entry["end"] is not None:
                model.apply(operation, entry["end"])
    return model, list(pending.values())


def lane_of(operation: dict) -> str:
    """Where operations follow each other; those of the other lane may be under way meanwhile."""
    return "backups" if operation["do"] == "backup" else "others"


class Beside(threading.Thread):
    """An operation beside others."""

    def __init__(self, operation: dict, act: Callable[[dict], dict]) -> None:
        super().__init__(daemon=True)
        self.operation, self.act = operation, act
        self.result: dict = {}
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self.act(self.operation)
        except BaseException as failure:  # noqa: BLE001: told by who waits for it
            self.failure = failure


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


def beats_in(directory: Path) -> int:
    """Of a file system of the heart: each line is the number of it, and none is missing before the last."""
    file = directory / "beat"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    if lines != [str(number) for number in range(1, len(lines) + 1)]:
        raise AssertionError(f"{directory}: lines are missing among {len(lines)}")
    return len(lines)


class Life(unittest.TestCase):
    """Made a test by a class that has `model`, `dice`, `destination`, a prefix for new names, and a journal."""

    model: Model
    dice: random.Random
    destination: Path
    prefix: str
    file_systems: tuple[str, ...] = ("ext4",)
    metadata_device = META
    other_devices: tuple[str, ...] = ()  # of dm, that are not the daemon's
    backs_up_beside = False  # whether other operations go on while a backup is made
    beside: Beside | None = None

    def write_entry(self, entry: dict) -> None:
        """Where it survives what is tried."""
        raise NotImplementedError

    def beats(self) -> int:
        """How many lines of the heart are known to be on the disk."""
        return 0

    @property
    def url(self) -> str:
        return f"vfs://{self.destination}/"

    def mountpoint(self, volume: str) -> Path:
        return Path(convoy_json("inspect", volume)["MountPoint"])

    def next_operation(self) -> dict:
        model, dice = self.model, self.dice
        volumes = [name for name in model.volumes if name != HEART]
        mounted = [name for name in volumes if model.volumes[name]["mounted"]]
        idle = [name for name in volumes if not model.volumes[name]["mounted"]]
        backed_up = self.beside.operation["volume"] if self.beside else None
        snapshots = [(name, each) for name, volume in model.volumes.items() for each in volume["snapshots"]]
        backups = list(model.backups)
        ordinary = [url for url in backups if "least" not in model.backups[url]]
        fresh = f"{self.prefix}{model.made}"
        create = {"do": "create", "name": fresh, "fs": dice.choice(self.file_systems)}
        choices: list[tuple[float, dict]] = [(2 if len(volumes) < 5 else 0, create)]

        def add(weight: float, things: list, make) -> None:
            if things:
                choices.append((weight, make(dice.choice(things))))

        deletable = [name for name in idle if name != backed_up]
        add(1 if len(volumes) > 2 else 0.2, deletable, lambda name: {"do": "delete", "name": name})
        add(2, idle, lambda name: {"do": "mount", "name": name})
        add(1, mounted, lambda name: {"do": "umount", "name": name})
        file, seed = f"f{dice.randrange(4)}", dice.randrange(1 << 30)
        add(4, mounted, lambda name: {"do": "write", "name": name, "file": file, "seed": seed})
        if len(snapshots) < 12:
            add(3, list(model.volumes), lambda name: {"do": "snapshot", "volume": name, "name": fresh})
        unused = [each for each in snapshots if each[0] != backed_up]
        add(1 if len(snapshots) > 6 else 0.3, unused, lambda each: {"do": "delete snapshot", "volume": each[0], "name": each[1]})
        if len(backups) < 10:
            add(3, snapshots, lambda each: {"do": "backup", "volume": each[0], "name": each[1]})
        add(1 if len(backups) > 5 else 0.3, backups, lambda url: {"do": "delete backup", "url": url})
        if len(volumes) < 6:
            add(1, ordinary, lambda url: {"do": "restore", "url": url, "name": fresh})
        # Of the same size, that is.
        fitting = [(url, name) for url in ordinary for name in idle if model.volumes[name]["fs"] == model.backups[url]["fs"]]
        add(1, fitting, lambda each: {"do": "restore into", "url": each[0], "name": each[1]})
        return dice.choices([choice for _, choice in choices], [weight for weight, _ in choices])[0]

    def do(self, operation: dict) -> None:
        is_beside = self.backs_up_beside and operation["do"] == "backup"
        self.collect_beside(wait=is_beside)
        self.write_entry({"begin": operation, "lane": lane_of(operation)})
        if is_beside:
            self.beside = Beside(operation, self.act_and_tell)
        else:
            self.model.apply(operation, self.act_and_tell(operation))

    def act_and_tell(self, operation: dict) -> dict:
        result = self.act(operation)
        self.write_entry({"end": result, "lane": lane_of(operation)})
        return result

    def collect_beside(self, *, wait: bool) -> None:
        """What the operation beside has done, if it has ended."""
        if self.beside is None or (self.beside.is_alive() and not wait):
            return
        beside, self.beside = self.beside, None
        beside.join()
        if beside.failure:
            raise beside.failure
        self.model.apply(beside.operation, beside.result)

    def act(self, operation: dict) -> dict:
        match operation:
            case {"do": "create", "name": name}:
                fs = operation.get("fs", "ext4")
                convoy("create", name, "--fs", fs, "--size", "32M" if fs == "ext4" else "320M")
            case {"do": "delete" | "mount" | "umount" as what, "name": name}:
                convoy(what, name)
            case {"do": "write", "name": name, "file": file}:
                write_durably(self.mountpoint(name) / file, operation["seed"])
            case {"do": "snapshot", "volume": volume, "name": name}:
                least = self.beats()
                convoy("snapshot", "create", volume, "--name", name)
                return {"least": least, "most": self.beats() + 1} if volume == HEART else {}
            case {"do": "delete snapshot", "name": name}:
                convoy("snapshot", "delete", name)
            case {"do": "backup", "name": name}:
                return {"url": convoy("backup", "create", name, "--dest", self.url)}
            case {"do": "delete backup", "url": url}:
                convoy("backup", "delete", url)
            case {"do": "restore", "url": url, "name": name}:
                convoy("create", name, "--backup", url)
            case {"do": "restore into", "url": url, "name": name}:
                convoy("restore", url, "--into", name)
        return {}

    # --- Checks ---

    def check(self, pending: Sequence[dict] = ()) -> None:
        check_nothing_is_left(self, self.metadata_device, self.other_devices, self.destination)
        found = convoy_json("list")
        backups = json.loads(convoy("backup", "list", self.url)) if (self.destination / "convoy").exists() else {}
        for operation in pending:
            self.settle(operation, found, backups)
        self.assertEqual(sorted(found), sorted(self.model.volumes))
        self.assertEqual(sorted(backups), sorted(self.model.backups))
        unsure = {operation["name"]: operation["file"] for operation in pending if operation["do"] == "write"}
        touched = {operation.get("name") for operation in pending} | self.model.restored
        for name, volume in self.model.volumes.items():
            mountpoint = found[name]["MountPoint"]
            self.assertEqual(bool(mountpoint), volume["mounted"], name)
            if mountpoint:
                self.check_content(Path(mountpoint), volume, unsure.get(name))
            else:
                check_file_system(f"/dev/mapper/{name}", volume["fs"], has_log=name in touched)
                with looking_into(f"/dev/mapper/{name}") as directory:
                    self.check_content(directory, volume, unsure.get(name))
            self.assertEqual(sorted(found[name]["Snapshots"]), sorted(volume["snapshots"]))
            for snapshot, state in volume["snapshots"].items():
                with snapshot_device(snapshot) as device, looking_into(device) as directory:
                    self.check_content(directory, state)
        if HEART in self.model.volumes and self.model.volumes[HEART]["mounted"]:
            self.assertGreaterEqual(beats_in(self.mountpoint(HEART)), self.beats())
        if backups:
            self.assertEqual(convoy_json("backup", "verify", self.url)["Damaged"], [])
            url = self.dice.choice(sorted(self.model.backups))
            convoy("create", "looked-at", "--backup", url)
            with looking_into("/dev/mapper/looked-at") as directory:
                self.check_content(directory, self.model.backups[url])
            convoy("delete", "looked-at")

    def settle(self, pending: dict, found: dict, backups: dict) -> None:
        """Whether what was under way was done, as far as it can be seen; the journal says so from now on."""
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
                result = {"least": 0, "most": 1 << 60} if pending["volume"] == HEART else {}
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
        self.write_entry({"end": result if done else None, "lane": lane_of(pending)})
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

