"""The man pages and the completions name every command and option that --help does, and nothing else."""
# budget: 120

import contextlib
import http.server
import json
import os
import pty
import re
import select
import shutil
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("CONVOY_BUILD_DIR", TREE / "build")).resolve() / "bin"
COMPLETIONS = TREE / "packaging/completions"
VOLUMES = {
    "db": {"DriverInfo": {"Size": "1"}, "Snapshots": {"monday": {"Name": "monday"}, "sunday": {"Name": "sunday"}}},
    "web": {"DriverInfo": {"Size": "1"}, "Snapshots": {}},
}


def help_of(command: list[str]) -> str:
    return subprocess.run([BINARIES / "convoy", *command, "--help"], capture_output=True, text=True, check=True).stdout


def options_in(text: str) -> set[str]:
    return set(re.findall(r"^ +(?:-\w,)?(--[a-z0-9-]+)", text, re.MULTILINE))


def subcommands_in(text: str) -> list[str]:
    _, _, part = text.partition("Subcommands:\n")
    return re.findall(r"^  (\w+) ", part, re.MULTILINE)


def all_commands() -> dict[str, tuple[set[str], set[str]]]:
    """Of each command, with "" for none: its own options and its subcommands."""
    commands: dict[str, tuple[set[str], set[str]]] = {}
    waiting: list[list[str]] = [[]]
    while waiting:
        words = waiting.pop()
        text = help_of(words)
        commands[" ".join(words)] = options_in(text), set(subcommands_in(text))
        waiting += [[*words, word] for word in subcommands_in(text)]
    return commands


COMMANDS = all_commands()


def expected_options(command: str) -> set[str]:
    """What may follow a command: its options, those of its group, and the global ones."""
    words = command.split()
    own = [COMMANDS[" ".join(words[:count])][0] for count in range(len(words) + 1)]
    return set().union(*own)


def options_named_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z0-9-]+", text))


def help_of_tool(*tool: str) -> str:
    return subprocess.run([BINARIES / "convoy-pdata_tools", *tool, "--help"], capture_output=True, text=True, check=True).stdout


class FakeDaemon(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(VOLUMES).encode())

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def fake_daemon(socket: Path) -> Iterator[None]:
    with socketserver.UnixStreamServer(str(socket), FakeDaemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


class Pages(unittest.TestCase):
    def rendered(self, page: Path) -> str:
        result = subprocess.run(
            ["man", "--warnings", "-l", page],
            env={"PATH": os.environ["PATH"], "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        self.assertEqual(result.stderr, "", page)
        return result.stdout

    def test_every_command_and_option_is_in_its_page(self) -> None:
        pages = {page.stem: self.rendered(page) for page in (TREE / "packaging/man").iterdir()}
        for command, (options, _) in COMMANDS.items():
            group = command.split()[0] if command else ""
            name = f"convoy-{group}" if f"convoy-{group}" in pages else "convoy-volume" if group else "convoy"
            self.assertIn(f"convoy {command}".strip(), pages[name])
            for word in command.split():
                self.assertRegex(pages["convoy"], rf"\b{word}\b")
            for option in options - {"--help"}:
                self.assertRegex(pages[name], rf"{option}\b", f"{name}(8) does not tell of {command} {option}")
        known = set().union(*(options for options, _ in COMMANDS.values()))
        # Docker's option, in an example.
        known.add("--volume-driver")
        tools = pages.pop("convoy-pdata_tools")
        for name, text in pages.items():
            self.assertLessEqual(options_named_in(text), known, name)
        known_to_tools = set()
        for tool in re.findall(r"^  (\w+)", help_of_tool(), re.M):
            self.assertIn(f"convoy-pdata_tools {tool}", tools)
            known_to_tools |= options_named_in(help_of_tool(tool))
        self.assertLessEqual(options_named_in(tools), known_to_tools)

    def test_pages_are_sound(self) -> None:
        for page in (TREE / "packaging/man").iterdir():
            lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
            self.assertEqual((lint.returncode, lint.stdout), (0, ""), page)


class Completion(unittest.TestCase):
    """What a shell offers behind a line; each shell is another way to ask."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.socket = self.directory / "socket"
        self.environment = {
            "PATH": f"{BINARIES}:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": directory.name, "LC_ALL": "C.UTF-8", "TERM": "dumb",
        }  # fmt: skip

    def run_shell(self, *words: str | Path) -> list[str]:
        result = subprocess.run(
            words, env=self.environment, cwd=self.directory, capture_output=True, text=True, timeout=30, check=False
        )
        self.assertEqual(result.stderr, "", words)
        return result.stdout.splitlines()

    def offered(self, line: str) -> set[str]:
        raise NotImplementedError

    def test_commands_and_options_are_those_of_help(self) -> None:
        for command, (_, subcommands) in COMMANDS.items():
            line = " ".join(["convoy", *command.split()])
            self.assertEqual({word for word in self.offered(f"{line} --") if word.startswith("--")}, expected_options(command))
            if subcommands:
                self.assertEqual(self.offered(f"{line} "), subcommands, command)

    def names(self, line: str) -> set[str]:
        """Without the options, which zsh offers where there is nothing else."""
        return {word for word in self.offered(line) if not word.startswith("--")}

    def test_names_are_those_that_the_daemon_knows(self) -> None:
        convoy = f"convoy --socket {self.socket}"
        with fake_daemon(self.socket):
            for command in ("delete", "mount", "umount", "inspect", "snapshot create", "--debug mount --mountpoint=/mnt"):
                self.assertEqual(self.names(f"{convoy} {command} "), {"db", "web"}, command)
            for command in ("snapshot delete", "snapshot inspect", "backup create", "backup create --dest vfs:///a"):
                self.assertEqual(self.names(f"{convoy} {command} "), {"monday", "sunday"}, command)
            self.assertEqual(self.names(f"convoy --socket={self.socket} umount d"), {"db"})
            self.assertEqual(self.names(f"{convoy} backup list --volume-name "), {"db", "web"})
            self.assertEqual(self.names(f"{convoy} create "), set())
        self.assertEqual(self.names(f"{convoy} delete "), set())


class Bash(Completion):
    def offered(self, line: str) -> set[str]:
        # bash's own list of words, in which "=" stands alone.
        words = re.findall(r"=|[^\s=]+", line) + ([""] if line.endswith(" ") else [])
        script = f'. {COMPLETIONS}/convoy.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _convoy; printf "%s\\n" "${{COMPREPLY[@]}}"'
        return set(self.run_shell("bash", "--norc", "-c", script, "bash", *words)) - {""}

    def test_files(self) -> None:
        (self.directory / "mount point").mkdir()
        (self.directory / "file").touch()
        self.assertEqual(self.offered("convoy mount --mountpoint "), {"mount point"})
        self.assertEqual(self.offered("convoy daemon --log=f"), {"file"})


class Fish(Completion):
    def offered(self, line: str) -> set[str]:
        script = f"source {COMPLETIONS}/convoy.fish; complete -C \"$argv\""
        lines = self.run_shell("fish", "--no-config", "-c", script, line)
        return {line.split("\t")[0] for line in lines}


class Zsh(Completion):
    # compadd is how all completions reach zsh's line: this one also prints them.
    RC = """
        autoload -U compinit; compinit -u -D
        compadd() {
          local -a offered
          builtin compadd -O offered "$@"
          print -rl -- "${(@)offered/#/offered:}" >>$ZDOTDIR/offered
          builtin compadd "$@"
        }
        print ready >>$ZDOTDIR/offered
        PS1='> '
        zle-done() { print done >>$ZDOTDIR/offered }
        zle -N zle-done; bindkey '^X' zle-done; bindkey '^I' complete-word
        setopt no_list_beep; LISTMAX=10000
    """

    def setUp(self) -> None:
        super().setUp()
        (self.directory / ".zshrc").write_text(f"fpath=({COMPLETIONS} $fpath)\n{self.RC}")
        self.log = self.directory / "offered"
        self.environment |= {"ZDOTDIR": str(self.directory), "TERM": "vt100"}
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(self.directory)
            os.execve(shutil.which("zsh"), ["zsh", "-i", "-d"], self.environment)  # type: ignore[arg-type]
        self.addCleanup(os.waitpid, pid, 0)
        self.addCleanup(os.close, self.terminal)
        self.addCleanup(os.kill, pid, 9)
        self.wait_for("ready")

    def wait_for(self, word: str) -> None:
        deadline = time.monotonic() + 30
        screen = b""
        while not self.log.exists() or word not in self.log.read_text().splitlines():
            self.assertLess(time.monotonic(), deadline, screen)
            if select.select([self.terminal], [], [], 0.02)[0]:
                screen += os.read(self.terminal, 65536)

    def offered(self, line: str) -> set[str]:
        self.log.write_text("")
        # ^U empties the line; the tab is followed by what tells that it is done.
        os.write(self.terminal, b"\x15" + line.encode() + b"\t\x18")
        self.wait_for("done")
        lines = self.log.read_text().splitlines()
        return {line.removeprefix("offered:").rstrip("=") for line in lines if line.startswith("offered:")} - {""}


# Only its subclasses are tests.
del Completion


if __name__ == "__main__":
    unittest.main()
