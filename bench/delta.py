#!/usr/bin/python3
"""Our thin_delta beside Debian's, on metadata that the real kernel made.

  delta.py MAPPINGS                what ./dev bench delta runs, for 1 and 10 million mappings
  delta.py MAPPINGS METADATA       on metadata that delta_pool.py made, each program once: to see that all this works

Without METADATA, such an image is made when it is missing (build/bench/delta-MAPPINGS). Each row is one
pair of snapshots: wall time and peak memory of Debian's thin_delta, of ours, and of ours with --changed-only, and how many times
quicker than Debian's it is; the median of several runs. Warm: right after another run. Cold: with the host's caches dropped (as
root); a cache of the disk's own remains. The time that a program takes which does nothing is a part of all of them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from delta_pool import CHANGES, FIRST_SNAPSHOT

TREE = Path(__file__).resolve().parents[1]
TOOLS = TREE / "build/bin/convoy-pdata_tools"
MIB = 1 << 20
RUNS = {"nothing": 9, "debian": 3, "ours": 3, "changed-only": 9}


def image(mappings: int) -> Path:
    directory = TREE / f"build/bench/delta-{mappings}"
    if not (directory / "out/made").exists():
        # Each mapping takes 16 bytes of half-full leaves, each copied leaf 4 KiB.
        metadata = (mappings * 64 + (400 << 20)) >> 20
        machine = TREE / "tools/machine/machine.py"
        subprocess.run(
            [machine, "run", "--timeout", "7200", "--state", directory, "--out", directory / "out"]
            + ["--disk", f"meta={metadata}M", "--", TREE / "bench/delta_pool.py", str(mappings)],
            check=True,
        )
    return directory / "meta.img"


def drop_caches() -> bool:
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


class Measured:
    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds, self.memory = seconds, memory


def run(command: list[str | Path]) -> float:
    begin = time.monotonic()
    with open("/dev/null", "w", encoding="utf-8") as null:
        # With close_fds, Python forks itself, which takes longer than our shortest run.
        process = subprocess.Popen([str(word) for word in command], stdout=null, close_fds=False)
        status = process.wait()
    if status != 0:
        raise SystemExit(f"{command} ended with {status}")
    return time.monotonic() - begin


def peak_memory(command: list[str | Path]) -> int:
    """Linux counts the memory of whoever starts a program as the program's: here that is a small one."""
    with tempfile.NamedTemporaryFile("r") as told, open("/dev/null", "w", encoding="utf-8") as null:
        subprocess.run(["/usr/bin/time", "-f", "%M", "-o", told.name, *map(str, command)], stdout=null, check=True)
        return int(told.read()) << 10


def measure(command: list[str | Path], runs: int, *, cold: bool) -> Measured:
    if not cold:
        run(command)
    results = []
    for _ in range(runs):
        if cold:
            drop_caches()
        results.append(run(command))
    return Measured(statistics.median(results), peak_memory(command))


def changed_blocks(command: list[str | Path]) -> int:
    """What the delta says, as a check that both tools do the same work."""
    text = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout
    return sum(int(line.split('"')[3]) for line in text.splitlines() if line.startswith("    <") and "<same" not in line)


def bench(mappings: int, metadata: Path, runs: dict[str, int], *, cold: bool) -> None:
    print(f"\n{mappings} mappings of 64 KiB, {'cold' if cold else 'warm'} cache")
    print(f"a program that does nothing: {measure(['true'], runs['nothing'], cold=cold).seconds * 1000:.1f} ms")
    print(f"{'changed':>9} {'':9} {'debian':>19} {'ours':>27} {'ours, changed only':>27}")
    for number, (count, how) in enumerate(CHANGES):
        first = FIRST_SNAPSHOT + number
        words = ["--snap1", str(first), "--snap2", str(first + 1), metadata]
        commands = {
            "debian": ["thin_delta", *words],
            "ours": [TOOLS, "thin_delta", *words],
            "changed-only": [TOOLS, "thin_delta", "--changed-only", *words],
        }
        blocks = changed_blocks(commands["changed-only"])
        if not blocks == changed_blocks(commands["debian"]) == min(count, mappings):
            raise SystemExit(f"{blocks} blocks changed, not {count}")
        results = {name: measure(command, runs[name], cold=cold) for name, command in commands.items()}
        debian = results["debian"]
        line = f"{blocks:>9} {how:9} {debian.seconds * 1000:>8.1f} ms {debian.memory / MIB:>5.1f} M"
        for name in ("ours", "changed-only"):
            result = results[name]
            line += f" {result.seconds * 1000:>8.1f} ms {debian.seconds / result.seconds:>6.1f}x {result.memory / MIB:>5.1f} M"
        print(line, flush=True)


def main() -> None:
    mappings = int(sys.argv[1])
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if len(sys.argv) > 2:
        bench(mappings, Path(sys.argv[2]), dict.fromkeys(RUNS, 1), cold=True)
        return
    metadata = image(mappings)
    bench(mappings, metadata, RUNS, cold=False)
    if drop_caches():
        bench(mappings, metadata, RUNS, cold=True)
    else:
        print("\nwithout the cold figures: only root may drop the host's caches")


if __name__ == "__main__":
    main()
