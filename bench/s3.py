#!/usr/bin/python3
"""Backups in S3 with growing distances to the server, beside restic, and rclone, which only copies the same bytes;
and, as a floor, rclone copying what ours has stored.

  s3.py            what ./dev bench s3 runs, on an image of 600 MiB and more of this machine's /usr
  s3.py MEGABYTES  on another one

The server is Ceph, on the same CPUs (Swift does not take what restic sends). Before it stands the proxy of the tests, which counts the requests and lets
each wait for the latency. All programs run with their defaults. restic reads the whole image again if it has changed, as it has to;
ours is told the pool blocks that a delta would name.
"""

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backup import ENGINE, MIB, TREE, WORK, fresh, prepare, report, run, warm

sys.path.append(str(TREE / "tests/s3"))
from fault_proxy import FaultProxy
from servers import ceph, environment, s3cmd

MEGABYTES = 600
LATENCIES = (0, 20, 100)  # ms
BACKUPS = 1000  # in the list that is fetched


def serve(server: int, latency: float, pipe: multiprocessing.connection.Connection) -> None:
    proxy = FaultProxy(server, latency=latency)
    pipe.send(proxy.port)
    while pipe.recv():
        pipe.send(proxy.requests)


class Way:
    """One to the server, of some length."""

    def __init__(self, server: int, latency: int) -> None:
        self.pipe, other = multiprocessing.Pipe()
        multiprocessing.Process(target=serve, args=(server, latency / 1000, other), daemon=True).start()
        self.port = self.pipe.recv()

    def requests(self) -> int:
        self.pipe.send(True)
        return self.pipe.recv()


@contextlib.contextmanager
def ways_to_a_server() -> Iterator[dict[int, Way]]:
    with ceph(Path("/var/tmp")) as server:
        s3cmd(server, "mb", "s3://bench")
        yield {latency: Way(server, latency) for latency in LATENCIES}


def use(way: Way) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(environment(way.port) | {"RESTIC_CACHE_DIR": str(WORK / "restic-cache"), "RCLONE_CONFIG": ""})


# --- Programs: each has a way, a bucket of its own in it, and an image that it puts there ---


class Ours:
    name = "convoy"

    def __init__(self, _way: Way, number: int) -> None:
        self.url = f"s3://bench/convoy-{number}/"
        self.backup = ""

    def create(self) -> str:
        return self._create("full.img")

    def unchanged(self) -> str:
        return self._create("full.img", self.backup, WORK / "no.blocks")

    def changed(self) -> str:
        return self._create("changed.img", self.backup, WORK / "changed.blocks")

    def restore(self) -> str:
        return run(ENGINE, "restore", "convoy-restored.img", self.url, self.backup)[1]

    def delete(self) -> str:
        return run(ENGINE, "delete", self.url, self.backup)[1]

    def _create(self, image: str, *more: str | Path) -> str:
        output = run(ENGINE, "create", image, self.url, *more)[1]
        self.backup = json.loads(output)["backup"]
        return output


class Restic:
    name = "restic"

    def __init__(self, way: Way, number: int) -> None:
        self.repository = f"s3:http://127.0.0.1:{way.port}/bench/restic-{number}"
        self._restic("init")

    def create(self) -> str:
        return self._restic("backup", "full.img")

    def unchanged(self) -> str:
        return self._restic("backup", "full.img")

    def changed(self) -> str:
        return self._restic("backup", "changed.img")

    def restore(self) -> str:
        return self._restic("restore", "latest", "--target", fresh("restic-restored"))

    def delete(self) -> str:
        return self._restic("forget", "--prune", "latest")

    def _restic(self, *words: str | Path) -> str:
        return run("restic", "--quiet", "-r", self.repository, *words)[1]


def rclone_place(way: Way, name: str) -> str:
    return f":s3,provider=Other,env_auth,region=us-east-1,force_path_style,endpoint='http://127.0.0.1:{way.port}':bench/{name}"


class Rclone:
    name = "rclone"

    def __init__(self, way: Way, number: int) -> None:
        self.place = rclone_place(way, f"rclone-{number}")

    def create(self) -> str:
        return run("rclone", "copyto", "full.img", f"{self.place}/image")[1]

    def restore(self) -> str:
        return run("rclone", "copyto", f"{self.place}/image", fresh("rclone-restored") / "image")[1]


class Floor:
    """What ours stores, put there by a program that does nothing else, in as many requests."""

    name = "floor"

    def __init__(self, way: Way, number: int) -> None:
        self.store = fresh("floor-store")
        run(ENGINE, "create", "full.img", self.store)
        self.place = rclone_place(way, f"floor-{number}")

    def create(self) -> str:
        options = ["--transfers", "8", "--s3-upload-cutoff", "1G", "--s3-disable-checksum", "--s3-no-check-bucket", "--s3-no-head"]
        return run("rclone", "copy", "--no-traverse", *options, self.store, self.place)[1]


STEPS = {
    "create": "full backup", "unchanged": "unchanged", "changed": "1000 random writes", "restore": "restore", "delete": "deletion"
}  # fmt: skip


@dataclass
class Measured:
    seconds: float
    requests: int


def measure(way: Way, action: Callable[[], object]) -> Measured:
    before = way.requests()
    begin = time.monotonic()
    action()
    return Measured(time.monotonic() - begin, way.requests() - before)


def row(what: str, name: str, cells: list[Measured]) -> None:
    print(f"{what:20} {name:8}" + "".join(f"{cell.seconds:9.2f} s {cell.requests:6}" for cell in cells), flush=True)


def main() -> None:
    size = prepare(int(sys.argv[1]) if len(sys.argv) > 1 else MEGABYTES)
    warm("full.img")
    warm("changed.img")
    print(f"image of {size / MIB:.0f} MiB; {os.cpu_count()} CPUs; wall time and requests")
    print(f"{'':29}" + "".join(f"{f'{latency} ms more':>18}" for latency in LATENCIES), flush=True)
    taken: dict[tuple[str, str, int], Measured] = {}
    with ways_to_a_server() as ways:
        for program in (Ours, Restic, Rclone, Floor):
            made = {}
            for latency, way in ways.items():
                use(way)
                made[latency] = program(way, latency)
            for step, what in STEPS.items():
                if not hasattr(program, step):
                    continue
                for latency, way in ways.items():
                    use(way)
                    taken[step, program.name, latency] = measure(way, getattr(made[latency], step))
                row(what, program.name, [taken[step, program.name, latency] for latency in LATENCIES])
        subprocess.run(["cmp", WORK / "changed.img", WORK / "convoy-restored.img"], check=True)
        use(ways[0])
        url = "s3://bench/list/"
        with (WORK / "small.img").open("wb") as image:
            image.write(os.urandom(MIB))
        run(ENGINE, "create", "small.img", url, "--times", str(BACKUPS))
        for latency, way in ways.items():
            use(way)
            taken["list", Ours.name, latency] = measure(way, lambda: run(ENGINE, "list", url))
        row(f"list of {BACKUPS}", Ours.name, [taken["list", Ours.name, latency] for latency in LATENCIES])

    print()
    full = {(name, latency): taken["create", name, latency].seconds for name in ("convoy", "restic", "floor") for latency in LATENCIES}
    report("full backup at 20 ms, times that at 0", 1.2, full["convoy", 20] / full["convoy", 0])
    report("full backup at 20 ms, restic times ours", -3, full["restic", 20] / full["convoy", 20])
    report("full backup at 20 ms, times the floor", 1.2, full["convoy", 20] / full["floor", 20])
    report("requests of an unchanged backup", 12, taken["unchanged", "convoy", 0].requests)
    report(f"list of {BACKUPS} backups at 20 ms, seconds", 5, taken["list", "convoy", 20].seconds)


if __name__ == "__main__":
    main()
