"""The rules of the source tree that a program can check."""
# budget: 60

import json
import os
import re
import subprocess
import unittest
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", TREE / "build"))


def sources(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in (TREE / "src").glob(pattern))


def allowed_includes() -> dict[str, set[str]]:
    """The table of layers in ARCHITECTURE.md: a folder of src, and the folders it may include."""
    layers: dict[str, set[str]] = {}
    for line in (TREE / "ARCHITECTURE.md").read_text().splitlines():
        match = re.fullmatch(r"\| `(\w+)` \|.*\| ([^|]*) \|", line)
        if not match:
            continue
        folder, includes = match.groups()
        above = set(layers)
        layers[folder] = above if includes in ("all above", "all") else set(re.findall(r"\w+", includes))
    return layers


class Layers(unittest.TestCase):
    def test_every_folder_is_a_layer(self) -> None:
        self.assertEqual({path.name for path in (TREE / "src").iterdir()}, set(allowed_includes()))

    def test_a_layer_names_only_layers_above_it(self) -> None:
        seen: set[str] = set()
        for folder, includes in allowed_includes().items():
            self.assertLessEqual(includes, seen, f"{folder} names a layer that stands below it")
            seen.add(folder)

    def test_a_file_includes_only_what_its_layer_may(self) -> None:
        layers = allowed_includes()
        wrong = []
        for path in sources("*/*.cc", "*/*.h"):
            folder = path.parent.name
            for included in re.findall(r'^#include "(\w+)/', path.read_text(), re.MULTILINE):
                if included != folder and included not in layers[folder]:
                    wrong.append(f"{path.relative_to(TREE)} includes {included}/")
        self.assertEqual(wrong, [])


class Formatting(unittest.TestCase):
    def test_sources_are_as_clang_format_writes_them(self) -> None:
        files = [str(path) for folder in ("src", "tests", "bench", "fuzz") for path in (TREE / folder).rglob("*.[ch]*") if path.suffix in (".cc", ".h")]
        result = subprocess.run(
            ["clang-format-19", "--dry-run", "-Werror", *files], capture_output=True, text=True, check=False
        )
        self.assertEqual(result.returncode, 0, result.stderr[:2000])


class ListOfTests(unittest.TestCase):
    """No test file stands in the tree without being run."""

    def test_every_unit_test_file_is_compiled(self) -> None:
        commands = json.loads((BUILD / "compile_commands.json").read_text())
        compiled = {Path(command["file"]) for command in commands}
        self.assertEqual([path for path in sources("**/*_test.cc") if path not in compiled], [])

    def test_every_suite_is_known_to_ctest(self) -> None:
        shown = subprocess.run(
            ["ctest", "--test-dir", str(BUILD), "--show-only=json-v1"], capture_output=True, check=True
        )
        words = {word for test in json.loads(shown.stdout)["tests"] for word in test["command"]}
        tracked = subprocess.run(
            ["git", "-C", str(TREE), "ls-files", "-co", "--exclude-standard", "*_test.py"],
            capture_output=True,
            text=True,
            check=False,
        )
        suites = tracked.stdout.split() or [str(p) for p in TREE.glob("t*/**/*_test.py")]
        self.assertGreater(len(suites), 0)
        self.assertEqual([suite for suite in suites if str(TREE / suite) not in words], [])


if __name__ == "__main__":
    unittest.main()
