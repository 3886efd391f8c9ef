"""A disk that loses, in any order, what was not flushed: all that data device, metadata device, root and destination were told to write
is in one log (dm-log-writes), and the state of the disk is made anew of it, as it may have been if the power had been cut at some
moment. What users had been told by then holds in each.

A flush makes durable what was written before, and a write with FUA itself; of what stands between two such points, any part may be
on the disk or not, down to single sectors. The log's format: Documentation/admin-guide/device-mapper/log-writes.rst.
"""
# budget: 900
# long budget: 10000
# machine: --memory 2G --disk all=3G --disk log=8G --disk replay=3G --disk cow=2G

import fcntl
import mmap
import os
import random
import struct
import threading
import time
import traceback
import unittest
from dataclasses import dataclass
from pathlib import Path

from random_life import HEART, Life, Model, told
from support import (
    LOG, MIB, ROOT, Daemon, allow_kernel, check_after_a_cut, check_after_a_start_after_a_cut, dm_devices, mounts, pool_options, run,
    shut_down_pool,
)  # fmt: skip

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))
OPERATIONS, REPLAYS = (120, 500) if LONG else (14, 12)
SEED = int(os.environ.get("CONVOY_SEED") or random.randrange(1000))
ALL, WRITE_LOG, REPLAY, COW = (os.environ[f"DISK_{name}"] for name in ("ALL", "LOG", "REPLAY", "COW"))
SECTOR = 512
# In the order in which they stand on the disk.
SLICES = {"data": 1792 * MIB, "meta": 32 * MIB, "root": 128 * MIB, "store": 1024 * MIB}
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
BLKDISCARD = 0x1277


def sectors_of(device: str) -> int:
    return int(run("blockdev", "--getsz", device).stdout)


def create_device(name: str, table: str) -> None:
    run("dmsetup", "create", name, "--table", table)


def make_slices(disk: str) -> None:
    begin = 0
    for name, size in SLICES.items():
        create_device(f"slice-{name}", f"0 {size // SECTOR} linear /dev/mapper/{disk} {begin}")
        begin += size // SECTOR


@dataclass(frozen=True)
class Entry:
    """Of the log: what was written, or a mark."""

    sector: int
    count: int  # of sectors
    flags: int
    data: int  # where it is in the log, in bytes
    mark: str = ""


class Disk:
    """A block device, past the page cache."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, 4 * MIB)

    def read(self, offset: int, length: int) -> memoryview:
        view = memoryview(self.buffer)[:length]
        if os.preadv(self.descriptor, [view], offset) != length:
            raise AssertionError(f"the disk ends before {offset + length}")
        return view

    def write(self, offset: int, data: memoryview) -> None:
        os.pwritev(self.descriptor, [data], offset)

    def discard(self, offset: int, length: int) -> None:
        fcntl.ioctl(self.descriptor, BLKDISCARD, struct.pack("QQ", offset, length))

    def close(self) -> None:
        os.close(self.descriptor)


def read_log() -> list[Entry]:
    disk = Disk(WRITE_LOG)
    magic, _, count, sector_size = struct.unpack_from("<QQQI", disk.read(0, SECTOR))
    assert (magic, sector_size) == (0x6A736677736872, SECTOR)
    entries, offset = [], SECTOR
    for _ in range(count):
        head = bytes(disk.read(offset, SECTOR))
        sector, sectors, flags, length = struct.unpack_from("<QQQQ", head)
        mark = head[32 : 32 + length].rstrip(b"\0").decode() if flags & MARK else ""
        offset += SECTOR
        entries.append(Entry(sector, sectors, flags, offset, mark))
        if not flags & (MARK | DISCARD):
            offset += sectors * SECTOR
    disk.close()
    return entries


class Heart(threading.Thread):
    def __init__(self, mountpoint: Path) -> None:
        super().__init__(daemon=True)
        self.mountpoint, self.stopping, self.beats = mountpoint, threading.Event(), 0

    def run(self) -> None:
        with (self.mountpoint / "beat").open("a") as file:
            while not self.stopping.is_set():
                file.write(f"{self.beats + 1}\n")
                file.flush()
                os.fsync(file.fileno())
                self.beats += 1
                time.sleep(0.02)


class LogWrites(Life):
    backs_up_beside = True
    destination = Path("/mnt/store")
    prefix = "n"
    file_systems = ("ext4", "ext4", "ext4", "xfs")
    metadata_device = "/dev/mapper/slice-meta"

    def setUp(self) -> None:
        allow_kernel("thin: Deletion of thin device [0-9]+ failed|reached low water mark|EXT4-fs .*orphan")
        self.addCleanup(self.tear_down)
        self.daemon: Daemon | None = None
        self.heart: Heart | None = None
        self.told_beats = 0
        self.dice = random.Random(SEED)
        self.journal: list[dict] = []
        self.replaying = False
        self.lock = threading.Lock()
        for directory in (ROOT, self.destination):
            directory.mkdir(parents=True, exist_ok=True)

    def write_entry(self, entry: dict) -> None:
        if self.replaying:
            return
        with self.lock:
            self.journal.append(entry | {"beats": self.heart.beats if self.heart else 0})
            run("dmsetup", "message", "logged", "0", "mark", str(len(self.journal)))

    def beats(self) -> int:
        return self.told_beats if self.replaying or not self.heart else self.heart.beats

    def mount_and_start(self) -> None:
        run("mount", "/dev/mapper/slice-root", ROOT)
        run("mount", "/dev/mapper/slice-store", self.destination)
        self.daemon = Daemon(pool=pool_options("/dev/mapper/slice-data", self.metadata_device, fs="ext4"))

    def tear_down(self) -> None:
        if self.daemon and self.daemon.process:
            self.daemon.kill()
        for target in reversed(mounts()):
            run("umount", target)
        for target in (ROOT, self.destination):
            run("umount", target, check=False)
        slices = [f"slice-{name}" for name in SLICES]
        below = [*slices, "replayed", "logged"]
        there = dm_devices()
        for name in [name for name in there if name not in below and name != "convoy-pool"] + ["convoy-pool", *below]:
            if name in there:
                run("dmsetup", "remove", "--retry", name)

    def work(self) -> None:
        create_device("logged", f"0 {sectors_of(ALL)} log-writes {ALL} {WRITE_LOG}")
        make_slices("logged")
        for name in ("root", "store"):
            run("mkfs.ext4", "-q", "-F", "-E", "nodiscard", f"/dev/mapper/slice-{name}")
        self.other_devices = ("logged", *(f"slice-{name}" for name in SLICES))
        self.model = Model()
        self.mount_and_start()
        self.do({"do": "create", "name": HEART})
        self.do({"do": "mount", "name": HEART})
        self.heart = Heart(self.mountpoint(HEART))
        self.heart.start()
        for _ in range(OPERATIONS):
            self.do(self.next_operation())
        self.collect_beside(wait=True)
        self.heart.stopping.set()
        self.heart.join()
        self.lived = len(self.journal)
        self.check()  # which makes a volume that is in no journal
        self.tear_down()

    def test_recovery_at_any_moment(self) -> None:
        self.work()
        self.replaying = True
        entries = read_log()
        points = [number for number, entry in enumerate(entries) if entry.flags & (FLUSH | FUA)]
        marked = [number for number, entry in enumerate(entries) if entry.mark.isdigit() and int(entry.mark) <= self.lived]
        points = [point for point in points if marked[0] < point < marked[-1]]
        chosen = sorted(self.dice.sample(range(len(points) - 1), min(REPLAYS, len(points) - 1)))
        source, base = Disk(WRITE_LOG), Disk(REPLAY)
        self.other_devices = ("replayed", *(f"slice-{name}" for name in SLICES))
        done, inside = 0, 0
        for index in chosen:
            # All up to here, and any part of what is behind it, up to the next. A flush is for what was before it: what it
            # writes itself is durable by FUA only.
            point = entries[points[index]]
            durable, end = points[index] + (1 if point.flags & FUA or not point.count else 0), points[index + 1] + 1
            for entry in entries[done:durable]:
                self.apply(entry, source, base)
            done = durable
            marks = [int(entry.mark) for entry in entries[:end] if entry.mark]
            story = self.journal[: marks[-1]]
            self.told_beats = story[-1]["beats"]
            self.model, pending = told(story)
            inside += bool(pending)
            with self.subTest(seed=SEED, point=points[index], pending=pending):
                try:
                    self.replay(entries[durable:end], source, pending)
                except Exception:  # told at once: the others may take hours
                    traceback.print_exc()
                    print(*LOG.read_text().splitlines()[-40:], sep="\n", flush=True)
                    raise
        self.assertEqual(len(chosen), REPLAYS)
        self.assertGreater(inside, REPLAYS / 3)
        print(f"CONVOY_SEED={SEED}: {len(entries)} entries, {len(points)} points, {len(chosen)} replayed, {inside} of them inside an operation", flush=True)
        source.close()
        base.close()

    @staticmethod
    def apply(entry: Entry, source: Disk, target: Disk, count: int | None = None) -> None:
        if entry.flags & MARK or not entry.count:
            return
        if entry.flags & DISCARD:
            target.discard(entry.sector * SECTOR, entry.count * SECTOR)
            return
        length = (entry.count if count is None else count) * SECTOR
        for offset in range(0, length, 4 * MIB):
            part = min(4 * MIB, length - offset)
            target.write(entry.sector * SECTOR + offset, source.read(entry.data + offset, part))

    def replay(self, maybe: list[Entry], source: Disk, pending: list[dict]) -> None:
        create_device("replayed", f"0 {sectors_of(REPLAY)} snapshot {REPLAY} {COW} N 8")
        try:
            disk = Disk("/dev/mapper/replayed")
            fate = self.dice.choice(("none", "all", "some", "some"))
            for entry in maybe:
                if entry.flags & DISCARD or fate == "none" or (fate == "some" and self.dice.random() < 0.5):
                    continue
                torn = fate == "some" and self.dice.random() < 0.2
                self.apply(entry, source, disk, self.dice.randrange(entry.count + 1) if torn and entry.count else None)
            disk.close()
            make_slices("replayed")
            check_after_a_cut(self.metadata_device)
            self.mount_and_start()
            self.check(pending)
            self.assertEqual(self.daemon.stop(), 0)
            shut_down_pool(self.other_devices)
            check_after_a_start_after_a_cut(self.metadata_device)
        finally:
            self.tear_down()


if __name__ == "__main__":
    unittest.main(verbosity=2)
