#!/usr/bin/python3
"""The backup engine beside restic, borg, what Rancher Convoy did, and the least that any of them has to do.

  backup.py            what ./dev bench backup runs, on an image of 2 GiB and more of this machine's /usr
  backup.py MEGABYTES  on a smaller one: to see that all this works

All in one run, on the same image, warm (it is read before). The peers run with their defaults, but borg without encryption, which ours
does not have either, and restic with a password, since it can't do without. restic and borg see a file that has changed as a
whole, as a block device always has; ours is told the pool blocks of 2 MiB that a delta would name. Times are wall time; each program's
is the best of its runs, since others use this machine, too.
"""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
ENGINE = TREE / "build/bin/backup_engine"
WORK = TREE / "build/bench/backup"
MIB = 1 << 20
BLOCK = 2 * MIB
RUNS = 3
MEGABYTES = 2300


@dataclass
class Measured:
    seconds: float
    cpu: float
    memory: int
    stored: int = 0


def run(*words: str | Path, directory: Path = WORK) -> tuple[Measured, str]:
    environment = os.environ | {
        "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(WORK / "restic-cache"), "BORG_BASE_DIR": str(WORK / "borg-base"),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }  # fmt: skip
    begin = time.monotonic()
    with subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, cwd=directory, env=environment, text=True) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{words} ended with {process.returncode}")
    return Measured(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024), output


def tree_size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def run_into(store: Path, *words: str | Path) -> tuple[Measured, str]:
    """As run(), and how much is in the store that was not there before."""
    before = tree_size(store)
    measured, output = run(*words)
    measured.stored = tree_size(store) - before
    return measured, output


def fresh(name: str) -> Path:
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


# --- Images ---


def make_images(megabytes: int) -> None:
    files = fresh("files")
    size = 0
    for source in sorted(path for path in Path("/usr").rglob("*") if path.is_file() and not path.is_symlink()):
        if size >= megabytes * MIB:
            break
        target = files / source.relative_to("/usr")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        size += (source.stat().st_size + 4095) // 4096 * 4096
    blocks = (size + size // 8 + 64 * MIB) // 4096  # inodes, journal and bitmaps
    image = WORK / "full.img"
    image.unlink(missing_ok=True)
    run("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", files, image, str(blocks))
    shutil.rmtree(files)
    # The same with as much again that was never written.
    shutil.copyfile(image, WORK / "half.img")
    os.truncate(WORK / "half.img", 2 * image.stat().st_size)
    shutil.copyfile(image, WORK / "changed.img")
    generator = random.Random(1)
    touched = set()
    with (WORK / "changed.img").open("r+b") as file:
        for _ in range(1000):
            page = generator.randrange(image.stat().st_size // 4096)
            touched.add(page * 4096 // BLOCK)
            file.seek(page * 4096)
            file.write(generator.randbytes(4096))
    (WORK / "changed.blocks").write_text("".join(f"{block * BLOCK} {BLOCK}\n" for block in sorted(touched)))
    (WORK / "no.blocks").write_text("")


def prepare(megabytes: int) -> int:
    """Makes the images unless they are there. Returns the size of one."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not (WORK / "made").exists() or (WORK / "made").read_text() != str(megabytes):
        # By a process of its own: Linux counts the memory of whoever starts a program as the program's.
        subprocess.run([sys.executable, __file__, "--make-images", str(megabytes)], check=True)
        (WORK / "made").write_text(str(megabytes))
    return (WORK / "full.img").stat().st_size


def warm(image: str) -> None:
    subprocess.run(["cp", WORK / image, "/dev/null"], check=True)


# --- Programs ---


class Ours:
    name = "convoy"

    def __init__(self) -> None:
        self.store = fresh("convoy-store")
        self.backup = ""

    def create(self, image: str) -> Measured:
        self.store = fresh("convoy-store")
        return self._create(image)

    def again(self, image: str, blocks: str) -> Measured:
        return self._create(image, self.backup, WORK / blocks)

    def _create(self, image: str, *more: str | Path) -> Measured:
        measured, output = run_into(self.store, ENGINE, "create", image, self.store, *more)
        self.backup = json.loads(output)["backup"]
        return measured

    def restore(self) -> Measured:
        return run(ENGINE, "restore", "convoy-restored.img", self.store, self.backup)[0]


class Restic:
    name = "restic"

    def create(self, image: str) -> Measured:
        self.store = fresh("restic-store")
        shutil.rmtree(WORK / "restic-cache", ignore_errors=True)
        run("restic", "--quiet", "init", "-r", self.store)
        return self.again(image, "")

    def again(self, image: str, _blocks: str) -> Measured:
        return run_into(self.store, "restic", "--quiet", "-r", self.store, "backup", "--force", image)[0]

    def restore(self) -> Measured:
        return run("restic", "--quiet", "-r", self.store, "restore", "latest", "--target", fresh("restic-restored"))[0]


class Borg:
    name = "borg"

    def create(self, image: str) -> Measured:
        self.store = fresh("borg-store")
        shutil.rmtree(WORK / "borg-base", ignore_errors=True)
        run("borg", "init", "-e", "none", self.store)
        self.count = 0
        return self.again(image, "")

    def again(self, image: str, _blocks: str) -> Measured:
        self.count += 1
        return run_into(self.store, "borg", "create", "--files-cache=disabled", f"{self.store}::{self.count}", image)[0]

    def restore(self) -> Measured:
        return run("borg", "extract", f"{self.store}::{self.count}", directory=fresh("borg-restored"))[0]


def gzip_loop(image: str) -> Measured:  # in this process, so its memory is not told
    """One thread; each block of 2 MiB that is not zero: SHA-512, then gzip into a file."""
    store = fresh("gzip-store")
    begin, cpu = time.monotonic(), time.process_time()
    with (WORK / image).open("rb") as file:
        while block := file.read(BLOCK):
            if block.count(0) == len(block):
                continue
            name = hashlib.sha512(block).hexdigest()
            (store / name).write_bytes(gzip.compress(block, 6))
    return Measured(time.monotonic() - begin, time.process_time() - cpu, 0, tree_size(store))


def floor(image: str) -> Measured:
    measured, output = run(ENGINE, "floor", image)
    measured.stored = json.loads(output)["stored"]
    return measured


def restore_floor(image: str) -> Measured:
    measured, output = run(ENGINE, "restore-floor", image, "floor-restored.img")
    measured.seconds = json.loads(output)["seconds"]
    return measured


# --- Table ---


def best(measure: Callable[[], Measured], runs: int = RUNS) -> Measured:
    return min((measure() for _ in range(runs)), key=lambda measured: measured.seconds)


def row(what: str, name: str, measured: Measured, ours: Measured) -> None:
    memory = f"{measured.memory / MIB:7.0f}" if measured.memory else "      -"
    print(
        f"{what:22} {name:10} {measured.seconds:8.2f} s  {measured.cpu:8.2f} s {memory} MiB  {measured.stored / MIB:9.2f} MiB"
        f"  {measured.seconds / ours.seconds:7.2f}", flush=True,
    )  # fmt: skip


def report(what: str, aim: float, reached: float) -> None:
    """Prints whether an aim is reached: at most `aim` if that is positive, else at least its absolute value."""
    good = reached <= aim if aim > 0 else reached >= -aim
    print(f"{what:55} {reached:6.2f}  (aim {'<=' if aim > 0 else '>='} {abs(aim)}: {'reached' if good else 'NOT reached'})")


def main() -> None:
    if sys.argv[1:2] == ["--make-images"]:
        return make_images(int(sys.argv[2]))
    size = prepare(int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES)
    print(f"image of {size / MIB:.0f} MiB; {os.cpu_count()} CPUs; the last column is the time as a multiple of ours")
    print(f"{'':22} {'':10} {'wall':>10}  {'CPU':>10} {'memory':>11}  {'stored':>13}")
    ours, peers = Ours(), [Restic(), Borg()]
    aims: list[tuple[str, float, float]] = []

    for image in ("full.img", "half.img"):
        warm(image)
        mine = best(lambda image=image: ours.create(image))
        least = best(lambda image=image: floor(image))
        row(f"full, {image}", ours.name, mine, mine)
        row(f"full, {image}", "floor", least, mine)
        aims.append((f"full backup of {image}, times the floor", 1.2, mine.seconds / least.seconds))
        for peer, factor in zip(peers, (5, 1.8), strict=True):
            measured = best(lambda peer=peer, image=image: peer.create(image), 2)
            row(f"full, {image}", peer.name, measured, mine)
            aims.append((f"full backup of {image}, {peer.name} times ours", -factor, measured.seconds / mine.seconds))
    loop = best(lambda: gzip_loop("full.img"), 1)
    warm("full.img")
    mine = best(lambda: ours.create("full.img"), 2)
    row("full, full.img", "gzip loop", loop, mine)
    aims.append(("full backup, gzip loop times ours", -12, loop.seconds / mine.seconds))

    for peer in peers:
        peer.create("full.img")
    for what, image, blocks in (("unchanged", "full.img", "no.blocks"), ("1000 random writes", "changed.img", "changed.blocks")):
        warm(image)
        mine = best(lambda image=image, blocks=blocks: ours.again(image, blocks), 1)
        row(what, ours.name, mine, mine)
        if raw := BLOCK * len((WORK / blocks).read_text().splitlines()):
            aims.append((f"{what}, stored per byte of the blocks of 2 MiB they touch", 0.05, mine.stored / raw))
        for peer in peers:
            (WORK / image).touch()
            row(what, peer.name, best(lambda peer=peer, image=image: peer.again(image, ""), 1), mine)

    mine = best(ours.restore)
    least = best(lambda: restore_floor("changed.img"))
    row("restore", ours.name, mine, mine)
    row("restore", "floor", least, mine)
    aims.append(("restore, times its floor", 1.3, mine.seconds / least.seconds))
    for peer in peers:
        measured = best(peer.restore, 2)
        row("restore", peer.name, measured, mine)
        aims.append((f"restore, {peer.name} times ours", -2.5, measured.seconds / mine.seconds))
    subprocess.run(["cmp", WORK / "changed.img", WORK / "convoy-restored.img"], check=True)

    print()
    for aim in aims:
        report(*aim)


if __name__ == "__main__":
    main()
