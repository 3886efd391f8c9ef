"""What a machine is asked to run, and the ways in which a run can fail.

Every kind of machine takes a Job. A Failure carries the exit status and the one sentence that the
caller of machine.py gets; a command that merely ends with a status of its own is no Failure.
"""

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]

UNUSABLE = 125
TIME_LIMIT = 124
PANIC = 123
LOST = 122
KERNEL_WARNINGS = 121


class Failure(Exception):
    def __init__(self, status: int, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.details = details


@dataclass(frozen=True)
class Disk:
    name: str
    image: Path

    @property
    def variable(self) -> str:
        return f"DISK_{self.name.upper()}"


@dataclass(frozen=True)
class Job:
    command: list[str]
    disks: list[Disk]
    out: Path
    workspace: Path  # private to this run, removed after it
    timeout: float | None
    memory: int
    cpu: int | None
    interactive: bool
    init: str  # none or systemd
    started: float

    def out_of_time(self) -> bool:
        return self.timeout is not None and time.monotonic() - self.started > self.timeout

    def time_limit_failure(self) -> Failure:
        return Failure(TIME_LIMIT, f"the time limit of {self.timeout:g} s has passed")

    @property
    def reboot_request(self) -> Path:
        return self.out / "reboot"

    @property
    def power_cut_request(self) -> Path:
        return self.out / "power-cut"

    @property
    def allowances(self) -> Path:
        return self.out / "allow-kernel"

    def forget_earlier_run(self) -> None:
        for path in (self.reboot_request, self.power_cut_request, self.allowances):
            path.unlink(missing_ok=True)

    def environment(self, boot: int, home: str, devices: dict[str, str]) -> dict[str, str]:
        """The command's whole environment; devices maps DISK_... to paths."""
        search_path = [f"{TREE}/build/bin", "/usr/local/sbin", "/usr/local/bin"]
        search_path += ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        environment = {
            "PATH": ":".join(search_path),
            "HOME": home,
            "USER": "root",
            "LOGNAME": "root",
            "SHELL": "/bin/bash",
            "LANG": "C.UTF-8",
            "TERM": os.environ.get("TERM", "linux") if self.interactive else "dumb",
            # Nobody would answer libdevmapper's cookies, so it has to make device nodes itself.
            "DM_DISABLE_UDEV": "1",
            "VM_OUT": str(self.out),
            "VM_BOOT": str(boot),
        }
        passed_on = {k: v for k, v in os.environ.items() if k.startswith("CONVOY_")}
        return environment | passed_on | devices


def shell_script(environment: dict[str, str], command: list[str]) -> bytes:
    """A script that becomes the command: quoting is the one way in which any argument survives."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append(f"cd -- {shlex.quote(os.getcwd())}")
    lines.append(f"exec -- {shlex.join(command)}")
    return os.fsencode("\n".join(lines) + "\n")
