"""A random life of volumes, snapshots, backups and containers against a model in memory, on a real pool: after every step the daemon says
what the model has, and every so often each file is what it was written as.

A sequence that fails is made shorter, by leaving out steps as long as it fails, and printed; CONVOY_SEED repeats it.
"""
# budget: 900
# long budget: 15000
# machine: --memory 2G --disk data=4G --disk meta=64M

import json
import os
import random
import time
import unittest
from pathlib import Path

from promises import check_nothing_is_left
from random_life import Life, Model
from support import (
    DATA, META, ROOT, Daemon, allow_kernel, convoy, convoy_error, convoy_json, dm_devices, docker, mounts, pool_options, remove_tree,
    run, thin_check, wipe,
)

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))
STEPS, CHECK_EVERY = (2000, 50) if LONG else (120, 40)
SEED = int(os.environ.get("CONVOY_SEED") or random.randrange(1000))
SHRINKING = 1800 if LONG else 200  # seconds
CONTAINERS = ("first", "second")


def containers_of(volume: dict) -> list[str]:
    return volume.setdefault("containers", [])


class ModelOfContainers(Model):
    def apply(self, operation: dict, result: dict) -> None:
        match operation:
            case {"do": "docker mount", "name": name, "id": container}:
                if container not in containers_of(self.volumes[name]):
                    containers_of(self.volumes[name]).append(container)
            case {"do": "docker unmount", "name": name, "id": container}:
                containers_of(self.volumes[name]).remove(container)
            case _:
                super().apply(operation, result)
                return
        self.made += 1

    def is_in_use(self, name: str) -> bool:
        return self.volumes[name]["mounted"] or bool(containers_of(self.volumes[name]))


class RandomLife(Life):
    prefix = "n"
    file_systems = ("ext4", "ext4", "ext4", "xfs")

    def setUp(self) -> None:
        allow_kernel("thin: Deletion of thin device [0-9]+ failed|reached low water mark")
        self.runs = 0
        self.daemon: Daemon | None = None
        self.addCleanup(self.tear_down)

    def begin(self) -> None:
        """All is new."""
        self.tear_down()
        wipe(DATA, META)
        remove_tree(ROOT)
        self.runs += 1
        self.destination = Path(f"/tmp/backups-{self.runs}")
        self.destination.mkdir()
        self.model = ModelOfContainers()
        self.urls: dict[str, str] = {}  # of backups in the run that is repeated, and here
        self.daemon = Daemon(pool=pool_options(fs="ext4"))

    def tear_down(self) -> None:
        if self.daemon and self.daemon.process:
            self.daemon.kill()
        for target in reversed(mounts()):
            run("umount", target, check=False)
        there = dm_devices()
        for name in [name for name in there if name != "convoy-pool"] + ["convoy-pool"]:
            if name in there:
                run("dmsetup", "remove", "--retry", name)

    def write_entry(self, entry: dict) -> None:
        pass  # nobody forgets

    # --- Steps ---

    def next_operation(self) -> dict:
        dice, model = self.dice, self.model
        names = sorted(model.volumes)
        if dice.random() < 0.7 or not names:
            return super().next_operation()
        name = dice.choice(names)
        used = [(each, container) for each in names for container in containers_of(model.volumes[each])]
        choices: list[tuple[float, dict]] = [
            (4, {"do": "docker mount", "name": name, "id": dice.choice(CONTAINERS)}),
            (1, {"do": "stop and start"}),
            (1, {"do": "kill and start"}),
            (2, {"do": "mistake", "kind": dice.randrange(8), "name": name}),
            (1, {"do": "gc"}),
        ]
        if used:
            volume, container = dice.choice(used)
            choices.append((4, {"do": "docker unmount", "name": volume, "id": container}))
        if model.is_in_use(name):
            choices.append((1, {"do": "trim", "name": name}))
        return dice.choices([choice for _, choice in choices], [weight for weight, _ in choices])[0]

    def can_be_done(self, operation: dict) -> bool:
        """Here, where steps may have been left out."""
        volumes = self.model.volumes
        name, volume = operation.get("name", ""), operation.get("volume", "")
        if "url" in operation and operation["url"] not in self.urls:
            return False
        match operation["do"]:
            case "delete" | "mount" | "restore into":
                idle = name in volumes and not self.model.is_in_use(name)
                return idle and ("url" not in operation or volumes[name]["fs"] == self.model.backups[self.urls[operation["url"]]]["fs"])
            case "umount":
                return name in volumes and volumes[name]["mounted"] and not containers_of(volumes[name])
            case "write" | "trim":
                return name in volumes and self.model.is_in_use(name)
            case "snapshot":
                return volume in volumes
            case "delete snapshot" | "backup":
                return volume in volumes and name in volumes[volume]["snapshots"]
            case "docker mount" | "mistake":
                return name in volumes
            case "docker unmount":
                return name in volumes and operation["id"] in containers_of(volumes[name])
        return True

    def act(self, operation: dict) -> dict:
        match operation:
            case {"do": "docker mount" | "docker unmount" as what, "name": name, "id": container}:
                call = "Mount" if what == "docker mount" else "Unmount"
                self.assertNotIn("Err", docker(f"VolumeDriver.{call}", Name=name, ID=container))
            case {"do": "stop and start"}:
                self.assertEqual(self.daemon.stop(), 0)
                self.daemon.start()
            case {"do": "kill and start"}:
                self.daemon.kill()
                self.daemon.start()
            case {"do": "gc"}:
                if self.model.backups:
                    convoy("backup", "gc", self.url)
            case {"do": "trim", "name": name}:
                convoy("trim", name)
            case {"do": "mistake", "kind": kind, "name": name}:
                self.make_mistake(kind, name)
            case _:
                return super().act(operation)
        return {}

    def make_mistake(self, kind: int, name: str) -> None:
        """It is refused, and changes nothing."""
        snapshots = sorted(self.model.volumes[name]["snapshots"])
        match kind:
            case 0:
                self.assertIn("exists already", convoy_error("create", name, "--size", "64M"))
            case 1 if self.model.is_in_use(name):
                self.assertIn("mounted", convoy_error("delete", name))
            case 2 if self.model.is_in_use(name) and self.model.backups:
                error = convoy_error("restore", min(self.model.backups), "--into", name)
                self.assertRegex(error, "is mounted at|and the backup's volume has")  # another size or file system
            case 3 if snapshots:
                self.assertIn("exists already", convoy_error("snapshot", "create", name, "--name", snapshots[0]))
            case 4:
                self.assertIn("there is no volume", convoy_error("mount", name + "-x"))
            case 5 if snapshots:
                self.assertIn("exists already", convoy_error("create", snapshots[0], "--size", "32M"))
            case 6 if self.model.backups:
                url = min(self.model.backups)
                absent = url.replace(url.partition("?backup=")[2][:8], "00000000", 1)
                self.assertIn("no backup", convoy_error("create", name + "-x", "--backup", absent))
            case 7:
                self.assertIn("multiple", convoy_error("create", name + "-x", "--size", "1000000001"))

    def step(self, operation: dict) -> dict:
        here = operation | ({"url": self.urls[operation["url"]]} if "url" in operation else {})
        result = self.act(here)
        if here["do"] in ("stop and start", "kill and start", "mistake", "gc", "trim"):
            self.model.made += 1
        else:
            self.model.apply(here, result)
        found = convoy_json("list")
        self.assertEqual(sorted(found), sorted(self.model.volumes))
        for name, volume in self.model.volumes.items():
            self.assertEqual(sorted(found[name]["Snapshots"]), sorted(volume["snapshots"]), name)
            self.assertEqual(bool(found[name]["MountPoint"]), self.model.is_in_use(name), name)
        return result

    def check_all(self) -> None:
        # What Life looks at is who has it mounted, which containers do as well.
        commands = {name: volume["mounted"] for name, volume in self.model.volumes.items()}
        for name, volume in self.model.volumes.items():
            volume["mounted"] = self.model.is_in_use(name)
        self.check()
        for name, volume in self.model.volumes.items():
            volume["mounted"] = commands[name]

    def clear_up(self) -> None:
        for name, volume in list(self.model.volumes.items()):
            if self.model.is_in_use(name):
                convoy("umount", "--force", name)
            convoy("delete", name)
        check_nothing_is_left(self)
        self.assertEqual(self.daemon.stop(), 0)
        self.tear_down()
        thin_check()

    # --- The whole ---

    def test_every_step(self) -> None:
        self.dice = random.Random(SEED)
        print(f"CONVOY_SEED={SEED}", flush=True)
        self.begin()
        done: list[tuple[dict, dict]] = []
        try:
            for number in range(STEPS):
                self.urls = {url: url for url in self.model.backups}
                while not self.can_be_done(operation := self.next_operation()):
                    pass
                done.append((operation, {}))
                done[-1] = (operation, self.step(operation))
                if number % CHECK_EVERY == CHECK_EVERY - 1:
                    self.check_all()
            self.check_all()
            self.clear_up()
        except Exception as failure:
            shortest = self.shrink(done, failure)
            steps = "\n".join(json.dumps(operation) for operation, _ in shortest)
            raise AssertionError(f"seed {SEED}: {len(done)} steps, of which these fail, too:\n{steps}") from failure

    def fails(self, steps: list[tuple[dict, dict]]) -> bool:
        self.begin()
        try:
            for operation, was in steps:
                if not self.can_be_done(operation):
                    continue
                result = self.step(operation)
                if "url" in was:
                    self.urls[was["url"]] = result["url"]
            self.check_all()
            self.clear_up()
        except Exception:
            return True
        return False

    def shrink(self, steps: list[tuple[dict, dict]], failure: Exception) -> list[tuple[dict, dict]]:
        """Leaves out ever smaller parts, as long as the rest fails and there is time."""
        print(f"failed after {len(steps)} steps: {failure}", flush=True)
        deadline = time.monotonic() + SHRINKING
        size = len(steps) // 2
        while size > 0:
            begin = 0
            while begin < len(steps) and time.monotonic() < deadline:
                rest = steps[:begin] + steps[begin + size :]
                if self.fails(rest):
                    steps = rest
                else:
                    begin += size
            size //= 2
        return steps


if __name__ == "__main__":
    unittest.main(verbosity=2)
