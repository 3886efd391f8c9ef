#!/usr/bin/python3
"""Makes the pool whose metadata `./dev bench delta` reads, in the kernel that this runs in (the disk META of the machine).

  delta_pool.py MAPPINGS

A volume of MAPPINGS blocks of 64 KiB, each written, on a data device that keeps nothing (dm-zero). Then, for every entry of
CHANGES, that many blocks are written again and a snapshot is taken. So snapshot i+1 differs from snapshot i by entry i.
"""

import contextlib
import mmap
import os
import random
import subprocess
import sys
from pathlib import Path

BLOCK = 64 << 10
POOL, ZERO, VOLUME = "bench-pool", "bench-zero", "bench-volume"
VOLUME_ID, FIRST_SNAPSHOT = 1, 2

# How many blocks change, and whether they lie together or anywhere.
CHANGES = (
    (0, "-"),
    (1, "-"),
    (100, "clustered"),
    (100, "scattered"),
    (10_000, "clustered"),
    (10_000, "scattered"),
    (1_000_000, "clustered"),
    (1_000_000, "scattered"),
)


def blocks_to_change(count: int, how: str, mappings: int) -> list[tuple[int, int]]:
    """(first block, how many) of every write; the same in each run."""
    count = min(count, mappings)
    generator = random.Random(f"{count} {how} {mappings}")
    if how == "scattered":
        return [(block, 1) for block in generator.sample(range(mappings), count)]
    runs = 10 if count >= 100 else 1
    length = count // runs
    # One run in each of equal parts of the volume, so that none meets another.
    part = mappings // runs
    return [(number * part + generator.randrange(part - length + 1), length) for number in range(runs)] if count else []


def dmsetup(*words: object) -> None:
    subprocess.run(["dmsetup", *map(str, words)], check=True)


def write(device: int, ranges: list[tuple[int, int]], page: mmap.mmap) -> None:
    """Whole blocks: the kernel then copies none of them."""
    largest = len(page) // BLOCK
    for begin, count in ranges:
        for block in range(begin, begin + count, largest):
            length = min(largest, begin + count - block) * BLOCK
            if os.pwrite(device, memoryview(page)[:length], block * BLOCK) != length:
                raise OSError("a short write")


def make(mappings: int, metadata: str) -> None:
    subprocess.run(["modprobe", "-a", "dm-zero", "dm-thin-pool"], check=True)
    # Room for the volume and all that is written again.
    total = mappings + sum(min(count, mappings) for count, _ in CHANGES) + 1
    sectors = total * BLOCK // 512
    options = "3 no_discard_passdown error_if_no_space skip_block_zeroing"
    with contextlib.ExitStack() as devices:

        def create(name: str, table: str) -> None:
            dmsetup("create", name, "--table", table)
            devices.callback(dmsetup, "remove", name)

        create(ZERO, f"0 {sectors} zero")
        create(POOL, f"0 {sectors} thin-pool {metadata} /dev/mapper/{ZERO} {BLOCK // 512} 0 {options}")
        dmsetup("message", POOL, 0, f"create_thin {VOLUME_ID}")
        create(VOLUME, f"0 {mappings * BLOCK // 512} thin /dev/mapper/{POOL} {VOLUME_ID}")
        write_and_snapshot(mappings)


def write_and_snapshot(mappings: int) -> None:
    page = mmap.mmap(-1, 1 << 20)
    page.write(b"x" * len(page))
    device = os.open(f"/dev/mapper/{VOLUME}", os.O_WRONLY | os.O_DIRECT)
    try:
        write(device, [(0, mappings)], page)
        changes = [[], *(blocks_to_change(count, how, mappings) for count, how in CHANGES)]
        for snapshot, ranges in enumerate(changes, FIRST_SNAPSHOT):
            write(device, ranges, page)
            dmsetup("suspend", VOLUME)
            dmsetup("message", POOL, 0, f"create_snap {snapshot} {VOLUME_ID}")
            dmsetup("resume", VOLUME)
            print(f"snapshot {snapshot} of {mappings} mappings is made", flush=True)
    finally:
        os.close(device)


if __name__ == "__main__":
    make(int(sys.argv[1]), os.environ["DISK_META"])
    Path(os.environ["VM_OUT"], "made").write_text("whole\n")
