"""Ends a machine whose owner was killed and could not do so itself.

A process of its own holds one end of a pipe; that the other end was closed is the one thing that
the kernel reports however the owner died. (A signal on the parent's death would reach UML's main
process alone, which on its way out now and then forgets a helper.)
"""

import contextlib
import os
import shutil
import signal
from pathlib import Path


class Guard:
    """Exists as long as the owner; between watch() and release() it has something to do."""

    def __init__(self, workspace: Path) -> None:
        orders, self._orders = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            # Whatever happens, this process must not go on to do the owner's work.
            try:
                os.close(self._orders)
                _stand_guard(orders, workspace)
            finally:
                os._exit(0)
        os.close(orders)

    def watch(self, group: int) -> None:
        """From now on the owner's death ends this process group and removes the workspace."""
        os.write(self._orders, f"{group}\n".encode())

    def release(self) -> None:
        os.write(self._orders, b"0\n")

    def close(self) -> None:
        os.close(self._orders)
        os.waitpid(self._process, 0)


def _stand_guard(orders: int, workspace: Path) -> None:
    # What ends the owner's group or session must not end the guard before it has done its work.
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open(orders) as lines:
        groups = [int(line) for line in lines]
    if groups and groups[-1] != 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(groups[-1], signal.SIGKILL)
        shutil.rmtree(workspace, ignore_errors=True)
