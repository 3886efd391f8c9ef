"""Gives each running machine a CPU of its own, as long as there are enough.

UML runs about twice as fast when the host does not move its processes between CPUs. A slot is a
locked file, since the kernel takes the lock back however its holder ends. The files stay: removing
one while another run is opening it would let two runs lock the same slot.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from job import UNUSABLE, Failure


def _slot_directory() -> Path:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", "/nonexistent"))
    if runtime.is_dir():
        directory = runtime / "convoy-machine-cpus"
    else:
        directory = Path("/tmp", f"convoy-machine-cpus-{os.getuid()}")
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise Failure(UNUSABLE, f"{directory} belongs to another user")
    return directory


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def reserve(wanted: int | None) -> Iterator[int]:
    """Yields the CPU to use: the wanted one, else a free one, else one that is shared."""
    usable = sorted(os.sched_getaffinity(0))
    if wanted is not None and wanted not in usable:
        raise Failure(UNUSABLE, f"CPU {wanted} is not among those this process may use")
    directory = _slot_directory()
    for cpu in usable if wanted is None else [wanted]:
        descriptor = _try_lock(directory / f"cpu-{cpu}")
        if descriptor is not None:
            try:
                yield cpu
            finally:
                os.close(descriptor)
            return
    yield usable[os.getpid() % len(usable)] if wanted is None else wanted
