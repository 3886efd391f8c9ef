"""The kernel's log: reads records of /dev/kmsg, keeps them in kernel.log, finds warnings.

A record is "priority,sequence,microseconds,flags;text", followed by " KEY=value" lines.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from job import KERNEL_WARNINGS, UNUSABLE, Failure

LEVELS = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"]
WARN = LEVELS.index("warn")

HARMLESS = [
    # What many mounts in a second bring about: the suppressed are notices of them.
    "EXT4-fs (un)?mount: [0-9]+ callbacks suppressed",
    # Of a disk whose file is in a file system without FALLOC_FL_ZERO_RANGE, as tmpfs is: the kernel writes zeros then.
    "operation not supported error, dev ubd.*WRITE_ZEROES",
]

# guest-init.sh logs this once the system is up; what the kernel said before is its own business.
READY = "machine: ready"


@dataclass(frozen=True)
class Record:
    sequence: int
    level: int
    seconds: float
    text: str

    def __str__(self) -> str:
        return f"{LEVELS[self.level]:<6} [{self.seconds:12.6f}] {self.text}"


def parse(raw: bytes) -> list[Record]:
    """Orders the records; one that was read twice counts once."""
    records: dict[int, Record] = {}
    for line in raw.decode(errors="replace").split("\n"):
        head, separator, text = line.partition(";")
        fields = head.split(",")
        # The last line is half a record if the machine ended while writing it.
        if not separator or len(fields) < 4 or not all(f.isdigit() for f in fields[:3]):
            continue
        priority, sequence, microseconds = (int(f) for f in fields[:3])
        # The upper bits of the priority are the facility.
        records[sequence] = Record(sequence, priority & 7, microseconds / 1e6, text)
    return [records[sequence] for sequence in sorted(records)]


def since_ready(records: list[Record]) -> list[Record]:
    for position, record in enumerate(records):
        if record.text == READY:
            return records[position + 1 :]
    return []


def compile_allowance(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        message = f"{pattern!r} is not a regular expression: {error}"
        raise Failure(UNUSABLE, message) from None


class KernelLog:
    """What the kernel said in all boots of a run, and what it was allowed to say."""

    def __init__(self, path: Path, allowed: list[str], allowances: Path) -> None:
        self._path = path
        self._allowed = [compile_allowance(pattern) for pattern in [*HARMLESS, *allowed]]
        self._allowances = allowances
        self._path.write_text("")

    def add_boot(self, boot: int, records: list[Record], console: str) -> None:
        with self._path.open("a") as file:
            file.write(f"==== boot {boot}\n")
            file.writelines(f"{record}\n" for record in records)
            # A panic is on the console alone: no process lived to read it from the log.
            if console:
                file.write(f"---- console of boot {boot}\n{console.rstrip()}\n")

    def check(self, records: list[Record]) -> None:
        """Fails if a record is a warning or worse and not allowed."""
        allowed = self._allowed + self._allowed_by_command()
        unexpected = [
            str(record)
            for record in records
            if record.level <= WARN and not any(p.search(record.text) for p in allowed)
        ]
        if unexpected:
            sentence = f"the kernel's log has {len(unexpected)} warning(s) that are not allowed"
            raise Failure(KERNEL_WARNINGS, sentence, "\n".join(unexpected))

    def _allowed_by_command(self) -> list[re.Pattern[str]]:
        if not self._allowances.exists():
            return []
        lines = self._allowances.read_text(errors="replace").splitlines()
        return [compile_allowance(line) for line in lines if line]
