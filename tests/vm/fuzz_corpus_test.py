"""The metadata of small real pools, as fuzz/metadata_fuzz.cc takes them: the seeds of its corpus, in $VM_OUT/corpus."""
# budget: 360
# machine: --disk meta=256K --allow-kernel device-mapper.*(low.water|out.of|aborting|no.free|read-only)

import os
import unittest
from pathlib import Path

from support import META, dm_devices, run

from metadata_blocks import BITMAP, BLOCK, INDEX, NODE, SUPERBLOCK, crc32c

KINDS = (SUPERBLOCK, NODE, BITMAP, INDEX)  # in the order in which the fuzz target numbers them
UNKNOWN = 15
POOL, ZERO = "seed", "nothing"


def kind_of(block: bytes) -> int:
    difference = crc32c(block[4:]) ^ int.from_bytes(block[:4], "little")
    return KINDS.index(difference) if difference in KINDS else UNKNOWN


def to_seed(image: bytes) -> bytes:
    image = image.rstrip(b"\0")
    image += bytes(-len(image) % BLOCK)
    blocks = [image[begin : begin + BLOCK] for begin in range(0, len(image), BLOCK)]
    return b"".join(kind_of(block).to_bytes(4, "little") + block[4:] for block in blocks)


class Pool:
    """A pool of 64 KiB blocks whose data go nowhere."""

    def __init__(self) -> None:
        wipe_start(META)
        run("dmsetup", "create", ZERO, "--table", f"0 {8 << 21} zero")
        table = f"thin-pool {META} /dev/mapper/{ZERO} 128 0 2 no_discard_passdown error_if_no_space"
        run("dmsetup", "create", POOL, "--table", f"0 {8 << 21} {table}")

    def message(self, text: str) -> None:
        run("dmsetup", "message", POOL, "0", text)

    def write(self, thin_id: int, blocks: list[int]) -> None:
        run("dmsetup", "create", "thin", "--table", f"0 {1 << 48} thin /dev/mapper/{POOL} {thin_id}")
        device = os.open("/dev/mapper/thin", os.O_WRONLY)
        for block in blocks:
            os.pwrite(device, b"x" * BLOCK, block << 16)
        os.fsync(device)
        os.close(device)
        run("dmsetup", "remove", "thin")

    def remove(self) -> None:
        run("dmsetup", "remove", POOL)
        run("dmsetup", "remove", ZERO)


def wipe_start(device: str) -> None:
    with open(device, "r+b") as file:
        file.write(bytes(256 << 10))
        os.fsync(file.fileno())


class Corpus(unittest.TestCase):
    def setUp(self) -> None:
        run("modprobe", "dm-zero")
        run("modprobe", "dm-thin-pool")
        self.directory = Path(os.environ["VM_OUT"], "corpus")
        self.directory.mkdir(exist_ok=True)
        self.pool = Pool()

    def save(self) -> None:
        self.pool.remove()
        run("thin_check", META)
        seed = to_seed(Path(META).read_bytes())
        kinds = {seed[begin] for begin in range(0, len(seed), BLOCK)}
        self.assertLessEqual({0, 1, 2, 3}, kinds)
        (self.directory / self._testMethodName.removeprefix("test_")).write_bytes(seed)
        self.assertEqual(dm_devices(), [])

    def test_empty(self) -> None:
        self.save()

    def test_snapshots_under_a_metadata_snapshot(self) -> None:
        self.pool.message("create_thin 1")
        self.pool.write(1, list(range(40)) + [1 << 30])
        for snapshot in (2, 3):
            self.pool.message(f"create_snap {snapshot} 1")
            self.pool.write(1, list(range(snapshot, 60, 7)))
        self.pool.message("reserve_metadata_snap")
        self.pool.message("create_snap 4 3")
        self.pool.write(4, [5, 6, 7000])
        self.save()

    def test_trees_of_two_levels(self) -> None:
        self.pool.message("create_thin 16777215")
        self.pool.write(16777215, list(range(0, 1500, 2)))
        self.pool.message("create_snap 0 16777215")
        self.pool.write(0, list(range(0, 300, 3)))
        self.save()

    def test_many_devices(self) -> None:
        self.pool.message("create_thin 1")
        self.pool.write(1, [1, 2, 3])
        for snapshot in range(2, 131):
            self.pool.message(f"create_snap {snapshot} 1")
        self.save()


if __name__ == "__main__":
    unittest.main(verbosity=2)
