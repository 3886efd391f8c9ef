"""What is tried with every server of S3: the conformance suite of object stores, the life of a backup, and another client."""

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from servers import environment, s3cmd

BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "functional"))
import second_reader

MIB = 1 << 20
BLOCK = 2 * MIB


class ServerSuite:
    """Of a TestCase that gives `server`, a context manager with the server's port, and what the server is known not to pass."""

    not_passed = ""

    @classmethod
    def setUpClass(cls) -> None:
        cls.port = cls.enterClassContext(cls.server())
        s3cmd(cls.port, "mb", "s3://conformance")

    def conformance(self, port: int, *words: str, **more: str) -> None:
        result = subprocess.run(
            [BUILD / "bin/s3_conformance", "--gtest_brief=1", *words], env=environment(port) | more,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr[-3000:])

    def test_conformance(self) -> None:
        self.conformance(self.port, f"--gtest_filter=-{self.not_passed}")

    def test_another_client_reads_what_ours_has_put(self) -> None:
        self.conformance(self.port, "--gtest_filter=*KeepsEveryKindOfKey*")
        names = [line.split("s3://conformance/")[1] for line in s3cmd(self.port, "ls", "--recursive", "s3://conformance/").splitlines()]
        found = [name for name in names if name.endswith("/a.b_c-D9/.hidden/-x")]
        self.assertTrue(found[0].startswith("odd path+(1)&/ä%41?#'\"*~;=@<>,!:[]^`{|}$\\/"), found)
        text = s3cmd(self.port, "get", f"s3://conformance/{found[0]}", "-")
        self.assertEqual(text, "a.b_c-D9/.hidden/-x")

    def test_life_of_a_backup(self) -> None:
        engine = Engine(self.port, "s3://conformance/life/")
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            image = directory / "image"
            content = bytearray(random.Random(1).randbytes(24 * MIB) + bytes(8 * MIB))
            image.write_bytes(content)
            first = engine.create(image)
            old = bytes(content)
            content[4 * MIB : 21 * MIB] = random.Random(2).randbytes(17 * MIB)
            image.write_bytes(content)
            blocks = directory / "blocks"
            blocks.write_text("".join(f"{at} {BLOCK}\n" for at in range(4 * MIB, 22 * MIB, BLOCK)))
            second = engine.create(image, first, blocks)
            self.assertEqual(engine("list")["backups"], 2)
            for backup, expected in ((first, old), (second, content)):
                self.assertEqual(engine("verify", backup)["damaged"], 0)
                engine.restore(directory / "restored", backup)
                self.assertEqual((directory / "restored").read_bytes(), expected)

            # What another client fetches is a store like any other.
            (directory / "store").mkdir()
            s3cmd(self.port, "get", "--recursive", engine.url, f"{name}/store/")
            second_reader.restore(directory / "store", *second.split("/"), directory / "read")
            self.assertEqual((directory / "read").read_bytes(), content)

            engine("delete", first)
            self.assertGreater(engine("gc", second.split("/")[0])["packs"], 0)
            engine.restore(directory / "restored", second)
            self.assertEqual((directory / "restored").read_bytes(), content)
            engine("delete", second)
        listed = s3cmd(self.port, "ls", "--recursive", engine.url).split()
        self.assertEqual([word for word in listed if word.startswith("s3:")], [f"{engine.url}convoy/store.json"])


class Engine:
    """The backup engine by itself, for a host without thin pools."""

    def __init__(self, port: int, url: str) -> None:
        self.environment = environment(port)
        self.url = url

    def __call__(self, command: str, *words: str | Path) -> dict:
        return self._run(command, self.url, *words)

    def create(self, image: Path, *parent_and_blocks: str | Path) -> str:
        return self._run("create", image, self.url, *parent_and_blocks)["backup"]

    def restore(self, image: Path, backup: str) -> None:
        self._run("restore", image, self.url, backup)

    def _run(self, *words: str | Path) -> dict:
        result = subprocess.run([BUILD / "bin/backup_engine", *words], env=self.environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise AssertionError(f"{words} ended with {result.returncode}: {result.stderr}")
        return json.loads(result.stdout)
