"""Servers of S3 for tests."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYS = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing"}


@contextlib.contextmanager
def swift(directory: Path) -> Iterator[int]:
    """OpenStack Swift, which keeps what it is given under `directory`; gives its port."""
    (directory / "port").unlink(missing_ok=True)
    with (directory / "log").open("a") as log:
        # The system's Python, which has Debian's modules.
        process = subprocess.Popen(
            ["/usr/bin/python3", HERE / "swift_server.py", directory], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while not (directory / "port").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Swift did not start:\n{(directory / 'log').read_text()[-3000:]}")
            time.sleep(0.05)
        yield int((directory / "port").read_text())
    finally:
        process.kill()
        process.communicate()


def s3cmd(port: int, *words: str | Path, check: bool = True) -> str:
    """A client of somebody else's, with the same keys."""
    host = f"127.0.0.1:{port}"
    result = subprocess.run(
        [
            "s3cmd", "--config=/dev/null", f"--access_key={KEYS['AWS_ACCESS_KEY_ID']}",
            f"--secret_key={KEYS['AWS_SECRET_ACCESS_KEY']}", f"--host={host}", f"--host-bucket={host}", "--no-ssl",
            "--region=us-east-1", *map(str, words),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if check and result.returncode != 0:
        raise AssertionError(f"s3cmd {words} ended with {result.returncode}: {result.stderr}")
    return result.stdout


def environment(port: int) -> dict[str, str]:
    """What a client of ours needs to reach it, and nothing that the caller has for AWS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return inherited | KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
