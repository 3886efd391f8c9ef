#!/usr/bin/python3
"""What chunk size and compression cost and save: what ./dev bench sizes runs, on the image of backup.py.

  sizes.py [MEGABYTES]

For each: a full backup of files, and an incremental one after 1000 writes of 4 KiB at random. Seconds are the best of three runs.
"""

import json
import sys
from pathlib import Path

import backup
from backup import MIB, WORK

CHUNKS = (4, 8, 16, 32, 64)  # KiB
METHODS = ("none", "zstd:1", "zstd:2", "zstd:3", "zstd:6", "zstd:9")


def measure(chunk: int, method: str) -> None:
    options = ("--chunk", str(chunk << 10), "--compression", method)
    seconds = []
    for _ in range(backup.RUNS):
        store = backup.fresh("convoy-store")
        full = json.loads(backup.run(backup.ENGINE, "create", "full.img", store, *options)[1])
        seconds.append(full["seconds"])
    trees = tree_bytes(store)
    more = json.loads(backup.run(backup.ENGINE, "create", "changed.img", store, full["backup"], WORK / "changed.blocks", *options)[1])
    print(
        f"{chunk:3} KiB  {method:7} {min(seconds):7.2f} s {full['stored'] / MIB:9.1f} MiB, {trees / MIB:5.2f} of it trees"
        f"  {more['stored'] / MIB:7.2f} MiB, {(tree_bytes(store) - trees) / MIB:5.2f} of it trees", flush=True,
    )  # fmt: skip


def tree_bytes(store: Path) -> int:
    return sum(file.stat().st_size for file in store.rglob("*.tree"))


def main() -> None:
    size = backup.prepare(int(sys.argv[1]) if len(sys.argv) > 1 else backup.MEGABYTES)
    print(f"image of {size / MIB:.0f} MiB: full backup, and after 1000 random writes of 4 KiB")
    backup.warm("full.img")
    for chunk in CHUNKS:
        measure(chunk, "zstd:1")
    for method in METHODS:
        measure(16, method)


if __name__ == "__main__":
    main()
