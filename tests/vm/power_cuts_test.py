"""Power cuts: the machine is killed at random moments of a random life of volumes, snapshots and backups, and boots again with its
disks. What was answered with success is there, what was not is whole or gone, what was fsynced is there, and nothing is left over.

The root, the destination and the pool are on disks. What users were told is in a journal on the host, which survives: a line before
each operation and one after it. A volume, heart, is written to all the while, line by line with fsync; each line that is on the
disk is counted on the host, too.
"""
# budget: 1500
# long budget: 20000
# machine: --memory 1G --disk data=2G --disk meta=64M --disk root=256M --disk store=8G

import json
import os
import random
import shutil
import threading
import time
import unittest
from pathlib import Path

from promises import check_file_system, check_nothing_is_left
from random_life import HEART, Life, Model, beats_in, told
from support import (
    DATA, LOG, META, ROOT, Daemon, allow_kernel, check_after_a_cut, check_after_a_start_after_a_cut, convoy, convoy_json,
    pool_options, run, shut_down_pool, wipe,
)

CUTS = 300 if os.environ.get("CONVOY_TEST_LONG") else 6
BOOT = int(os.environ.get("VM_BOOT", "1"))
OUT = Path(os.environ["VM_OUT"])
DESTINATION = Path("/mnt/store")
SEED_FILE, JOURNAL, BEATS, TALLY = OUT / "seed", OUT / "journal", OUT / "beats", OUT / "tally"
if BOOT == 1:  # what an earlier run left
    for file in (SEED_FILE, JOURNAL, BEATS, TALLY):
        file.unlink(missing_ok=True)
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


def told_so_far() -> tuple[Model, list[dict]]:
    return told(json.loads(line) for line in (JOURNAL.read_text().splitlines() if JOURNAL.exists() else []))


def beats() -> int:
    """How many lines of the heart are known to be on the disk."""
    return len(BEATS.read_bytes()) if BEATS.exists() else 0


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


class PowerCuts(Life):
    backs_up_beside = True
    file_systems = ("ext4", "ext4", "ext4", "xfs")
    dice = DICE
    destination = DESTINATION
    prefix = f"n{BOOT}-"

    def write_entry(self, entry: dict) -> None:
        write_down(JOURNAL, json.dumps(entry) + "\n")

    def beats(self) -> int:
        return beats()

    def setUp(self) -> None:
        allow_kernel("thin: Deletion of thin device [0-9]+ failed|reached low water mark")
        ROOT.mkdir(parents=True, exist_ok=True)
        DESTINATION.mkdir(parents=True, exist_ok=True)
        if BOOT == 1:
            wipe(DATA, META)
            for disk in ("ROOT", "STORE"):
                run("mkfs.ext4", "-q", "-F", os.environ[f"DISK_{disk}"])
        else:
            check_after_a_cut(META)
        run("mount", os.environ["DISK_ROOT"], ROOT)
        run("mount", os.environ["DISK_STORE"], DESTINATION)
        self.addCleanup(lambda: shutil.copy(LOG, OUT / f"daemon-{BOOT}.log"))
        self.daemon = Daemon(pool=pool_options(fs="ext4"))

    def test_life_goes_on(self) -> None:
        self.model, pending = told_so_far()
        if BOOT > 1:
            self.check(pending)
            write_down(TALLY, f"{BOOT - 1}: {' and '.join(each['do'] for each in pending) or 'between operations'}\n")
            for operation in pending:
                if operation["do"] == "write":
                    self.do(operation)  # so that it is known what the file holds
        if BOOT > CUTS:
            self.tear_down()
            return
        if HEART not in self.model.volumes:
            self.do({"do": "create", "name": HEART})
        if not self.model.volumes[HEART]["mounted"]:
            self.do({"do": "mount", "name": HEART})
        heart = Heart(self.mountpoint(HEART))
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

    def tear_down(self) -> None:
        for name, volume in convoy_json("list").items():
            if volume["MountPoint"]:
                convoy("umount", name)
            check_file_system(f"/dev/mapper/{name}", self.model.volumes[name]["fs"], has_log=name in self.model.restored)
            convoy("delete", name)
        check_nothing_is_left(self)
        self.daemon.stop()
        shut_down_pool()
        check_after_a_start_after_a_cut(META)
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
