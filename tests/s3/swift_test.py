"""The client of S3 on a real server, OpenStack Swift, and through a proxy that lets one in six requests fail."""
# budget: 400

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from fault_proxy import FAULTS, FaultProxy
from servers import environment, s3cmd, swift

BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", Path(__file__).resolve().parents[2] / "build"))
# Swift's check whether an object is there is none when two come at once; it says so, with status 501.
NOT_SWIFTS = "-*TellsOneOfSeveralAtOnceThatItPut*"


class Swift(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        # Not /tmp, which may be a file system without user attributes.
        directory = tempfile.TemporaryDirectory(prefix="swift-", dir=BUILD)
        cls.addClassCleanup(directory.cleanup)
        cls.port = cls.enterClassContext(swift(Path(directory.name)))
        s3cmd(cls.port, "mb", "s3://conformance")

    def conformance(self, port: int, *words: str, **more: str) -> None:
        result = subprocess.run(
            [BUILD / "bin/s3_conformance", "--gtest_brief=1", *words], env=environment(port) | more,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stdout[-3000:] + result.stderr[-3000:])

    def test_conformance(self) -> None:
        self.conformance(self.port, f"--gtest_filter={NOT_SWIFTS}")

    def test_conformance_when_requests_fail(self) -> None:
        proxy = FaultProxy(self.port, share=1 / 6, seed=1)
        self.addCleanup(proxy.close)
        # But for the suite's largest tests, which have nothing more for this.
        left_out = f"{NOT_SWIFTS}:*ListsMoreObjects*:*PutsWhileNeighbours*"
        self.conformance(proxy.port, f"--gtest_filter={left_out}", S3_TEST_PAUSE_MS="2", S3_TEST_STALL_SECONDS="4")
        # Parts of objects and listings, which the suite asks for but seldom.
        often = ["--gtest_filter=*ReadsRanges*:*ListsSizes*", "--gtest_repeat=15"]
        self.conformance(proxy.port, *often, S3_TEST_PAUSE_MS="2", S3_TEST_STALL_SECONDS="4")
        self.assertEqual(set(proxy.faults), set(FAULTS), "not every fault has come up")

    def test_another_client_reads_what_ours_has_put(self) -> None:
        self.conformance(self.port, "--gtest_filter=*KeepsEveryKindOfKey*")
        names = [line.split("s3://conformance/")[1] for line in s3cmd(self.port, "ls", "--recursive", "s3://conformance/").splitlines()]
        found = [name for name in names if name.endswith("/a.b_c-D9/.hidden/-x")]
        self.assertTrue(found[0].startswith("odd path+(1)/ä/"), found)
        text = s3cmd(self.port, "get", f"s3://conformance/{found[0]}", "-")
        self.assertEqual(text, "a.b_c-D9/.hidden/-x")


if __name__ == "__main__":
    unittest.main(verbosity=2)
