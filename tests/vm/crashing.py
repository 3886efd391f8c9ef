"""The daemon that is killed at its crash points (tests/vm/crash_points.cc), and which of them a campaign tries."""

import os
import random
from pathlib import Path

CRASHING = Path(os.environ["CONVOY_BUILD_DIR"]) / "bin/crashing_daemon"
CRASH, PASSED = Path("/run/convoy-crash"), Path("/run/convoy-crash.passed")
NEVER = 1 << 30

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))
SEED = int(os.environ.get("CONVOY_SEED") or random.randrange(1000))
EVERY = 1 if LONG else 6  # one of so many points


def arm(points: int) -> None:
    PASSED.unlink(missing_ok=True)
    CRASH.write_text(f"{points}\n")


def passed() -> list[str]:
    """The points that the daemon came by since it was armed; they count no more."""
    CRASH.unlink(missing_ok=True)
    return PASSED.read_text().splitlines() if PASSED.exists() else []
