"""The format of backups is what its page says: a reader written from it restores what the program wrote."""
# budget: 120

import json
import os
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

import second_reader

ENGINE = Path(os.environ.get("CONVOY_BUILD_DIR", "build")).resolve() / "bin/backup_engine"
KIB, MIB = 1 << 10, 1 << 20


class SecondReader(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.store = self.directory / "store"
        self.store.mkdir()
        self.image = self.directory / "image"

    def create(self, *words: str) -> str:
        command = [str(ENGINE), "create", str(self.image), str(self.store), *words]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["backup"]

    def check(self, backup: str, expected: bytes) -> None:
        output = self.directory / "restored"
        second_reader.restore(self.store, *backup.split("/"), output)
        self.assertTrue(output.read_bytes() == expected)

    def test_it_restores_what_the_program_wrote(self) -> None:
        dice = random.Random(1)
        for size, chunk in ((20 * MIB + 512, 65536), (9 * MIB, 16384), (3 * MIB - 1024, 4096)):
            with self.subTest(size=size, chunk=chunk):
                content = bytearray(size)
                # More than one pack, zeros, what repeats, and what can be compressed.
                content[: size // 2] = dice.randbytes(size // 2)
                content[size * 3 // 4 : size * 3 // 4 + 100 * KIB] = b"abcdefgh" * (100 * KIB // 8)
                content[-1000:] = dice.randbytes(1000)
                self.image.write_bytes(content)
                first = self.create("--chunk", str(chunk))
                before = bytes(content)
                content[MIB : MIB + 5000] = dice.randbytes(5000)
                content[size // 4 : size // 4 + 200 * KIB] = bytes(200 * KIB)
                self.image.write_bytes(content)
                blocks = self.directory / "blocks"
                changed = sorted([(MIB, 64 * KIB), (size // 4 // (64 * KIB) * 64 * KIB, 320 * KIB)])
                blocks.write_text("".join(f"{offset} {length}\n" for offset, length in changed))
                second = self.create(first, str(blocks))
                self.check(first, before)
                self.check(second, bytes(content))

    def test_an_empty_volume(self) -> None:
        self.image.write_bytes(bytes(MIB))
        self.check(self.create(), bytes(MIB))


if __name__ == "__main__":
    unittest.main(verbosity=2)
