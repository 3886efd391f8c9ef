"""Runs a job on the host's own kernel, with loop devices as disks. Needs root and dm-thin-pool.

Nothing isolates the job here: it sees the host's files, and devices that it leaves behind stay.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import kernel_log
from job import UNUSABLE, Disk, Failure, Job, shell_script
from kernel_log import KernelLog

_POLL_SECONDS = 0.05


def usable() -> bool:
    if os.geteuid() != 0:
        return False
    try:
        subprocess.run(["modprobe", "-qa", "dm-thin-pool", "loop"], stderr=subprocess.DEVNULL)
        targets = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True)
    except FileNotFoundError:
        return False
    return any(line.split()[:1] == ["thin-pool"] for line in targets.stdout.splitlines())


def run(job: Job, log: KernelLog) -> int:
    """Runs the command once; returns its status."""
    home = job.workspace / "home"
    home.mkdir()
    with _loop_devices(job.disks) as devices, _kernel_messages() as messages:
        environment = job.environment(1, str(home), devices)
        if Path("/run/udev/control").exists():
            del environment["DM_DISABLE_UDEV"]
        status = _run_command(job, environment)
        records = kernel_log.parse(_read_messages(messages))
    log.add_boot(1, records, console="")
    if status == 0 and not job.interactive:
        log.check(records)
    return status


@contextlib.contextmanager
def _loop_devices(disks: list[Disk]) -> Iterator[dict[str, str]]:
    devices: dict[str, str] = {}
    try:
        for disk in disks:
            command = ["losetup", "--find", "--show", str(disk.image)]
            attached = subprocess.run(command, capture_output=True, text=True)
            if attached.returncode != 0:
                raise Failure(UNUSABLE, f"losetup failed: {attached.stderr.strip()}")
            devices[disk.variable] = attached.stdout.strip()
        yield devices
    finally:
        for device in devices.values():
            subprocess.run(["losetup", "--detach", device])


@contextlib.contextmanager
def _kernel_messages() -> Iterator[int]:
    """Yields /dev/kmsg, placed behind the messages that are already there."""
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        yield descriptor
    finally:
        os.close(descriptor)


def _read_messages(descriptor: int) -> bytes:
    messages = bytearray()
    while True:
        try:
            messages += os.read(descriptor, 8192)
        except BlockingIOError:
            return bytes(messages)
        except BrokenPipeError:
            # The kernel overwrote the next message; it goes on with the oldest that it has.
            continue


def _run_command(job: Job, environment: dict[str, str]) -> int:
    script = job.workspace / "job"
    script.write_bytes(shell_script(environment, job.command))
    options = {} if job.interactive else {"stdin": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(["/bin/bash", str(script)], env={}, **options)
    try:
        while process.poll() is None:
            _refuse_new_boot(job)
            if job.out_of_time():
                raise job.time_limit_failure()
            time.sleep(_POLL_SECONDS)
        _refuse_new_boot(job)
    finally:
        _end(process, job)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end(process: subprocess.Popen, job: Job) -> None:
    """The command may clean up what would stay in the host's kernel."""
    for how, patience in ((signal.SIGTERM, 30), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            if job.interactive:
                process.send_signal(how)
            else:
                os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _refuse_new_boot(job: Job) -> None:
    if job.reboot_request.exists() or job.power_cut_request.exists():
        raise Failure(UNUSABLE, "the host's own kernel is not rebooted for a test: use --kind uml")
