"""Runs a job in User Mode Linux: a kernel that is an ordinary process and needs no root.

The guest's files are the host's, with a writable layer in memory (guest-init.sh). Results come
through files in a directory that both see; the console is only kept for when the kernel panics.
"""

import contextlib
import ctypes
import enum
import os
import re
import resource
import shlex
import shutil
import signal
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cpu_slot
import kernel_log
import terminal
from guard import Guard
from job import LOST, PANIC, TREE, UNUSABLE, Failure, Job, shell_script
from kernel_log import KernelLog, Record

GUEST_INIT = Path(__file__).resolve().with_name("guest-init.sh")
REGISTERS = TREE / "build/lib/uml_registers.so"
GUEST_HOME = "/run/home"
MIN_MEMORY = 128 << 20

_POLL_SECONDS = 0.02
_NUDGE_SECONDS = 10
_CONSOLE_LINES_SHOWN = 30
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)


def missing_packages(init: str) -> list[str]:
    """The Debian packages to install before a machine can run here."""
    needed = {"user-mode-linux": "linux.uml", "busybox-static": "busybox", "kmod": "insmod"}
    if init == "systemd":
        needed["systemd"] = "/lib/systemd/systemd"
    search_path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
    return [package for package, tool in needed.items() if not shutil.which(tool, path=search_path)]


class How(enum.Enum):
    ENDED = enum.auto()
    POWER_CUT = enum.auto()
    OUT_OF_TIME = enum.auto()


@dataclass(frozen=True)
class End:
    """How one boot ended; status is None if the guest reported none."""

    how: How
    status: int | None
    panicked: bool
    console: str
    records: list[Record]


def run(job: Job, log: KernelLog) -> int:
    """Boots until a boot ends that asked for no other; returns the command's status."""
    _check(job)
    # UML's helper processes become ours when it dies, so that we see the last of them go.
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with cpu_slot.reserve(job.cpu) as cpu, contextlib.closing(Guard(job.workspace)) as guard:
        boot = 0
        status = None
        while status is None:
            boot += 1
            status = _judge(job, log, _Boot(job, boot, cpu, guard).run(log))
        return status


def _check(job: Job) -> None:
    # The kernel splits its command line at spaces, hostfs its options at commas.
    if not re.fullmatch(r"[\w./+-]+", str(job.workspace), re.ASCII):
        raise Failure(UNUSABLE, f"{job.workspace} has characters that UML can't take: set TMPDIR")
    if not REGISTERS.exists():
        raise Failure(UNUSABLE, f"{REGISTERS} is missing: run ./dev build")
    if job.memory < MIN_MEMORY:
        raise Failure(UNUSABLE, f"the machine needs at least {MIN_MEMORY >> 20}M of memory")


def _judge(job: Job, log: KernelLog, end: End) -> int | None:
    """The run's status, or None if there is to be another boot."""
    if end.how is How.OUT_OF_TIME:
        raise job.time_limit_failure()
    if end.how is How.ENDED:
        status = _reported_status(end)
        if status != 0:
            return status
    if not job.interactive:
        log.check(kernel_log.since_ready(end.records))
    if end.how is How.POWER_CUT:
        job.power_cut_request.unlink()
        return None
    if job.reboot_request.exists():
        job.reboot_request.unlink()
        return None
    return 0


def _reported_status(end: End) -> int:
    if end.panicked:
        reason = re.search("Kernel panic - not syncing: (.*)", end.console)
        sentence = f"the guest's kernel panicked: {reason[1] if reason else 'no reason given'}"
        raise Failure(PANIC, sentence, _last_lines(end.console))
    if end.status is None:
        sentence = "the machine was lost: it ended without reporting the command's status"
        raise Failure(LOST, sentence, _last_lines(end.console))
    return end.status


def _last_lines(console: str) -> str:
    return "\n".join(console.splitlines()[-_CONSOLE_LINES_SHOWN:])


class _Follower:
    """Copies to target what others append to a file, which need not exist yet."""

    def __init__(self, path: Path, target: BinaryIO) -> None:
        self._path = path
        self._target = target
        self._file: BinaryIO | None = None

    def copy_new(self) -> None:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return
        while chunk := self._file.read(1 << 20):
            self._target.write(chunk)
            self._target.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Boot:
    """One life of the machine, from power on until nothing of it is left."""

    def __init__(self, job: Job, number: int, cpu: int, guard: Guard) -> None:
        self._job = job
        self._number = number
        self._cpu = cpu
        self._guard = guard
        self._share = job.workspace / f"boot-{number}"
        self._console = bytearray()

    def run(self, log: KernelLog) -> End:
        self._fill_share()
        lent = terminal.lent() if self._job.interactive else contextlib.nullcontext()
        records: list[Record] = []
        process = None
        with lent:
            try:
                process = self._start()
                self._guard.watch(process.pid)
                how = self._watch(process)
            finally:
                if process:
                    _kill_group(process)
                    self._guard.release()
                    self._read_console(process)
                records = self._kernel_records()
                log.add_boot(self._number, records, self._console_text())
        status = self._status()
        # UML itself may abort while it exits: the kernel has halted then, after the status was reported.
        aborted = process.returncode == -signal.SIGABRT and status is None
        panicked = aborted or b"Kernel panic" in self._console
        return End(how, status, panicked, self._console_text(), records)

    def _fill_share(self) -> None:
        self._share.mkdir()
        (self._share / "out").symlink_to(self._job.out)
        shutil.copy(GUEST_INIT, self._share / "init")
        # Not where it is: LD_PRELOAD splits names at spaces and colons.
        shutil.copy(REGISTERS, self._share / REGISTERS.name)
        visible = shlex.join([os.getcwd(), str(TREE)])
        interactive = "yes" if self._job.interactive else "no"
        settings = f"vm_out={shlex.quote(str(self._job.out))}\n"
        settings += f"visible=({visible})\ninteractive={interactive}\n"
        settings += f"init={self._job.init}\n"
        (self._share / "settings").write_bytes(os.fsencode(settings))
        letters = string.ascii_lowercase
        devices = {d.variable: f"/dev/ubd{x}" for x, d in zip(letters, self._job.disks)}
        environment = self._job.environment(self._number, GUEST_HOME, devices)
        (self._share / "job").write_bytes(shell_script(environment, self._job.command))

    def _command_line(self) -> list[str]:
        words = ["linux.uml", f"mem={self._job.memory >> 10}K", "root=/dev/root", "ro"]
        words += ["rootfstype=hostfs", "rootflags=/", f"init={self._share}/init"]
        words += [f"uml_dir={self._job.workspace}/uml"]
        words += [f"umid=convoy-{os.getpid()}-{self._number}"]
        words += [f"MACHINE_SHARE={self._share}"]
        # Links with plain names, because UML splits a file name at colons and commas.
        for letter, disk in zip(string.ascii_lowercase, self._job.disks):
            link = self._share / f"{disk.name}.disk"
            link.symlink_to(disk.image)
            words.append(f"ubd{letter}={link}")
        # Room for every message of a run: one that is overwritten could be a warning.
        words += ["log_buf_len=4M", "printk.devkmsg=on"]
        # A reboot would restart UML in place; a kernel that goes on after an oops may hang.
        words += ["noreboot", "oops=panic"]
        # Measures which RAID 6 code is fastest, for btrfs alone, in a third of the time of a boot.
        words += ["initcall_blacklist=raid6_select_algo"]
        words += ["quiet", "con=null", "con1=null", "ssl=null", "lsm=capability"]
        if self._job.interactive:
            return words + ["con0=fd:0,fd:1", "loglevel=2"]
        return words + ["con0=null,fd:1"]

    def _start(self) -> subprocess.Popen[bytes]:
        options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        # A pipe, for UML warns when its console is a file, which epoll refuses.
        options |= {"stdout": subprocess.PIPE, "start_new_session": True}
        if self._job.interactive:
            options = {"process_group": 0}
        process = subprocess.Popen(
            self._command_line(),
            env={
                "PATH": "/usr/bin:/bin",
                "TMPDIR": self._memory_directory(),
                "LD_PRELOAD": str(self._share / REGISTERS.name),
            },
            preexec_fn=self._prepare_child,
            **options,
        )
        if process.stdout:
            os.set_blocking(process.stdout.fileno(), False)
        return process

    def _memory_directory(self) -> str:
        """Where UML puts the file that is the guest's memory.

        It does not survive a full file system, and containers often have a tiny /dev/shm.
        """
        with contextlib.suppress(OSError):
            statistics = os.statvfs("/dev/shm")
            if statistics.f_bavail * statistics.f_frsize > self._job.memory:
                return "/dev/shm"
        return str(self._job.workspace)

    def _prepare_child(self) -> None:
        os.sched_setaffinity(0, {self._cpu})
        # A panic is an abort().
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self._job.interactive:
            terminal.take_foreground()

    def _watch(self, process: subprocess.Popen[bytes]) -> How:
        followers = [
            _Follower(self._share / "stdout", sys.stdout.buffer),
            _Follower(self._share / "stderr", sys.stderr.buffer),
        ]
        nudge = time.monotonic() + _NUDGE_SECONDS
        try:
            while True:
                # Asked first, so that what was written before the end is copied after it.
                ended = process.poll() is not None
                power_cut = self._job.power_cut_request.exists()
                if power_cut:
                    _kill_group(process)
                for follower in followers:
                    follower.copy_new()
                self._read_console(process)
                if power_cut:
                    return How.POWER_CUT
                if ended:
                    return How.ENDED
                if self._job.out_of_time():
                    return How.OUT_OF_TIME
                if time.monotonic() > nudge:
                    _run_clock(process)
                    nudge += _NUDGE_SECONDS
                time.sleep(_POLL_SECONDS)
        finally:
            for follower in followers:
                follower.close()

    def _read_console(self, process: subprocess.Popen[bytes]) -> None:
        while process.stdout and (chunk := process.stdout.read(1 << 16)):
            self._console += chunk

    def _console_text(self) -> str:
        return self._console.decode(errors="replace").replace("\r\n", "\n")

    def _kernel_records(self) -> list[Record]:
        path = self._share / "kmsg"
        return kernel_log.parse(path.read_bytes()) if path.exists() else []

    def _status(self) -> int | None:
        path = self._share / "status"
        return int(path.read_text()) if path.exists() else None


def _run_clock(process: subprocess.Popen[bytes]) -> None:
    """Sends the guest's clock interrupt, once it takes it.

    UML 6.1 sometimes loses the one that it has asked for: seen once in some twenty hours of a busy host. All of the guest then
    sleeps, without end and with a timer that is not set. One interrupt too many only makes it look at the time.
    """
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)[1], 16)
        if caught >> (signal.SIGALRM - 1) & 1:
            process.send_signal(signal.SIGALRM)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends UML and its helpers, and returns when they are gone and their files closed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-process.pid, 0)
