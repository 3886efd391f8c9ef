#!/usr/bin/python3
"""Runs a command in a kernel that has a device-mapper thin pool.

The machine is the host itself if it can be, or else User Mode Linux, which needs no root. It has
two fresh disks, data (20G) and meta (512M); --disk changes their sizes or adds more. In User Mode
Linux the command sees the host's files, and what it changes of them is gone afterwards. /tmp and
/run are empty there, but for this source tree and the caller's directory, should they be in them.
The command's environment:

  DISK_DATA, DISK_META, DISK_<NAME>   the disks' device paths
  VM_OUT    a directory that the host sees, too: the one given with --out
  VM_BOOT   1 in the first boot, 2 in the second, ...
  PATH      begins with build/bin of this source tree
  CONVOY_*  as the caller has them

Files that the command may make in $VM_OUT:

  allow-kernel  regular expressions, one per line, for what the kernel may warn of
  reboot        when the command ends with 0: boot again with the same disks, run it again
  power-cut     at once: kill the machine, boot again with the same disks, run it again. A command
                that makes this file then has to wait for its end. The disks lose what was in the
                guest's memory alone; they have no cache that could lose what was not flushed.

On the host's own kernel, the last two make the run fail.

The exit status is the command's, or else one of these, always with a sentence that begins with
"machine: " on stderr:

  121  the command succeeded, but the kernel's log has warnings that are not allowed
  122  the machine was lost: it ended without reporting the command's status
  123  the kernel panicked
  124  the time limit has passed
  125  bad arguments, or there is no machine to be had
  128+N  stopped by signal N

The whole kernel log is in kernel.log in the directory given with --out.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import disks
import host_kernel
import uml
from job import UNUSABLE, Failure, Job
from kernel_log import KernelLog


class Stopped(BaseException):
    """A signal asked this program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(UNUSABLE, f"{message} (try --help)")


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="machine.py",
        usage="machine.py run [OPTION...] -- COMMAND [ARGUMENT...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("action", metavar="run", choices=["run"], help=argparse.SUPPRESS)
    parser.add_argument(
        "--kind",
        choices=["auto", "host", "uml"],
        default="auto",
        help="the host's own kernel or User Mode Linux (default: the host's if it can)",
    )
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="for all boots (default 600)"
    )
    parser.add_argument(
        "--init",
        choices=["none", "systemd"],
        default="none",
        help="systemd: the command runs beside systemd as process 1, always in User Mode Linux",
    )
    parser.add_argument("--memory", default="1G", metavar="SIZE", help="of the guest (default 1G)")
    parser.add_argument(
        "--disk", action="append", default=[], metavar="NAME=SIZE", help="may be given repeatedly"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="$VM_OUT and kernel.log")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="keep the disks here, use those that are here"
    )
    parser.add_argument(
        "--allow-kernel",
        action="append",
        default=[],
        metavar="REGEX",
        help="a kernel warning that matches is no failure; may be given repeatedly",
    )
    parser.add_argument("--cpu", type=int, metavar="N", help="run on CPU N (default: a free one)")
    parser.add_argument(
        "--interactive",
        action="store_true",
        help="the command gets this terminal; no time limit, kernel warnings are no failure",
    )
    return parser


def parse_arguments(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = make_parser().parse_args(arguments[:end])
    command = arguments[end + 1 :]
    if not command:
        raise Failure(UNUSABLE, "there is no command: give one after -- (try --help)")
    if not options.timeout > 0:
        raise Failure(UNUSABLE, "--timeout must be positive")
    if options.interactive and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure(UNUSABLE, "--interactive needs a terminal as stdin and stdout")
    return options, command


def pick_machine(kind: str, init: str) -> Callable[[Job, KernelLog], int]:
    """The function that is to run the job."""
    if init == "systemd":
        if kind == "host":
            raise Failure(UNUSABLE, "--init systemd: the host has its own process 1")
        kind = "uml"
    if kind in ("auto", "host") and host_kernel.usable():
        return host_kernel.run
    if kind == "host":
        raise Failure(UNUSABLE, "the host's kernel has no thin-pool target, or this is not root")
    missing = uml.missing_packages(init)
    if missing:
        sentence = "there is no kernel with a thin pool here: apt-get install "
        raise Failure(UNUSABLE, sentence + " ".join(missing))
    return uml.run


def run(options: argparse.Namespace, command: list[str]) -> int:
    started = time.monotonic()
    run_job = pick_machine(options.kind, options.init)
    asked_disks = dict(disks.parse_disk(text) for text in options.disk)
    memory = disks.parse_size(options.memory)
    with contextlib.ExitStack() as cleanup:
        workspace = Path(tempfile.mkdtemp(prefix="convoy-machine-")).resolve()
        cleanup.callback(shutil.rmtree, workspace)
        images = prepare_directory(options.state or workspace)
        cleanup.callback(os.close, disks.lock_directory(images))
        job = Job(
            command=command,
            disks=disks.make_images(asked_disks, images),
            out=prepare_directory(options.out or workspace / "out"),
            workspace=workspace,
            timeout=None if options.interactive else options.timeout,
            memory=memory,
            cpu=options.cpu,
            interactive=options.interactive,
            init=options.init,
            started=started,
        )
        job.forget_earlier_run()
        log = KernelLog(job.out / "kernel.log", options.allow_kernel, job.allowances)
        return run_job(job, log)


def prepare_directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def stop_on_signals() -> None:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        # A second one must not interrupt the cleaning up.
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for each in signals:
        signal.signal(each, stop)


def main(arguments: list[str]) -> int:
    stop_on_signals()
    try:
        return run(*parse_arguments(arguments))
    except Failure as failure:
        if failure.details:
            print(failure.details, file=sys.stderr)
        print(f"machine: {failure.sentence}", file=sys.stderr)
        return failure.status
    except OSError as error:
        about = f" ({error.filename})" if error.filename else ""
        print(f"machine: {error.strerror}{about}", file=sys.stderr)
        return UNUSABLE
    except Stopped as stopped:
        print(f"machine: stopped by {signal.Signals(stopped.number).name}", file=sys.stderr)
        return 128 + stopped.number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
