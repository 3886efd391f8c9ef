"""Lends the caller's terminal to another process group, as a shell does for a foreground job."""

import contextlib
import os
import signal
import sys
import termios
from collections.abc import Iterator


def take_foreground() -> None:
    """Makes the calling process's group the terminal's foreground group.

    A background process that asks for this gets SIGTTOU, which would stop it.
    """
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    signal.signal(signal.SIGTTOU, before)


@contextlib.contextmanager
def lent() -> Iterator[None]:
    """Within, others may take the terminal and change its modes; after, all is as it was."""
    modes = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        take_foreground()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes)
