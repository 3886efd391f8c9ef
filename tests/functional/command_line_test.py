"""The programs as anybody can run them, without a kernel that has device mapper."""
# budget: 60

import json
import os
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

CONVOY = Path(os.environ.get("CONVOY_BUILD_DIR", "build")) / "bin/convoy"


def convoy(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run([CONVOY, *words], capture_output=True, text=True, timeout=30, check=False)


class Help(unittest.TestCase):
    def test_every_command_explains_itself(self) -> None:
        commands = [
            [], ["daemon"], ["create"], ["delete"], ["mount"], ["umount"], ["restore"], ["trim"], ["list"], ["inspect"], ["info"],
            ["pool"], ["pool", "grow"], ["snapshot"], ["snapshot", "create"], ["snapshot", "delete"], ["snapshot", "inspect"],
            ["backup"], ["backup", "create"], ["backup", "list"], ["backup", "inspect"], ["backup", "verify"], ["backup", "delete"], ["backup", "gc"], ["backup", "unlock"],
            ["jobs"], ["jobs", "cancel"],
        ]  # fmt: skip
        for command in commands:
            for flag in ("--help", "-h"):
                result = convoy(*command, flag)
                self.assertEqual(result.returncode, 0, command)
                self.assertIn("Usage: convoy", result.stdout)

    def test_the_reference_names_every_option(self) -> None:
        reference = (Path(__file__).parents[2] / "docs/cli.md").read_text()
        for command in (["daemon"], ["create"], ["delete"], ["mount"], ["umount"], ["list"], ["snapshot", "create"], ["backup", "create"], ["backup", "list"], ["backup", "verify"], ["jobs"]):
            for line in convoy(*command, "--help").stdout.splitlines():
                words = line.split()
                if words and words[0].startswith("-"):
                    option = words[0].split(",")[-1]
                    self.assertIn(f"`{option}", reference, f"docs/cli.md does not tell of {command} {option}")

    def test_version(self) -> None:
        for flag in ("--version", "-v"):
            self.assertRegex(convoy(flag).stdout, r"^convoy \d+\.\d+\.\d+\n$")


class Mistakes(unittest.TestCase):
    def failed(self, *words: str | Path) -> str:
        result = convoy(*words)
        self.assertEqual(result.returncode, 1, words)
        error = json.loads(result.stdout)["Error"]
        self.assertEqual(result.stderr, f"convoy: {error}\n")
        return error

    def test_values_that_are_empty(self) -> None:
        for words in (["create", ""], ["create", "x", "--backup", ""], ["-s", "", "list"], ["daemon", "--log", ""], ["snapshot", "create", "x", "--name", ""]):
            self.assertIn("the value is empty", self.failed(*words))

    def test_no_daemon(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "no.sock")
            self.assertIn(f"no daemon answers on {path}", self.failed("-s", path, "list"))
            path.touch()
            self.assertIn("no daemon answers", self.failed("list", "--socket", path))

    def test_answers_that_no_daemon_of_ours_gives(self) -> None:
        head = b"HTTP/1.0 200 OK\r\n"
        for answer, words, sentence in (
            (head + b"Content-Length: 5\r\n\r\nhello", ["list"], "is not JSON"),
            (b"", ["list"], "did not finish its answer"),
            (head, ["list"], "did not finish its answer"),
            (head + b"Content-Length: 9\r\n\r\n{}", ["list"], "did not finish its answer"),
            (head + b'\r\n{"Job": {"ID": "1"}}\n', ["create", "x"], "did not finish its answer"),
            (b"SSH-2.0\r\n\r\n", ["list"], "did not finish its answer"),
        ):
            with self.subTest(answer=answer), tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{directory}/strange.sock")
                listener.listen()
                listener.settimeout(10)
                command = [CONVOY, "-s", f"{directory}/strange.sock", *words]
                client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                connection, _ = listener.accept()
                connection.recv(4096)
                # Byte by byte, so that each may be the last of what arrives at once.
                for byte in answer:
                    connection.send(bytes([byte]))
                connection.close()
                output, _ = client.communicate(timeout=10)
                self.assertEqual(client.returncode, 1)
                self.assertIn(sentence, json.loads(output)["Error"])

    def test_words_that_are_no_command(self) -> None:
        self.assertIn("give a command, one of: daemon create", self.failed())
        self.assertIn("fly", self.failed("fly"))
        self.assertIn("--colour", self.failed("list", "--colour"))
        self.assertIn("VOLUME is required", self.failed("inspect"))

    def test_a_daemon_that_cannot_start_makes_nothing(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            root = Path(directory, "root")
            device = Path(directory, "file")
            device.write_bytes(b"\0" * 4096)
            for sentence, options in (
                ("dm.datadev is required", []),
                ("is not a block device", ["dm.datadev=" + str(device), "dm.metadatadev=" + str(device)]),
                ("does not exist", ["dm.datadev=/dev/nothing", "dm.metadatadev=/dev/nothing"]),
                ("unknown driver option", ["dm.colour=red"]),
            ):
                words = [word for option in options for word in ("--driver-opts", option)]
                error = self.failed("-s", f"{directory}/socket", "daemon", "--root", root, *words)
                self.assertIn(sentence, error)
            self.assertEqual(list(Path(directory).iterdir()), [device])


if __name__ == "__main__":
    unittest.main()
