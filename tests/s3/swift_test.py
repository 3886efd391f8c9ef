"""The client of S3 on a real server, OpenStack Swift; through a proxy that lets one in six requests fail; and through TLS."""
# budget: 400

import contextlib
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from fault_proxy import FAULTS, FaultProxy
from servers import environment, swift
from suite import BUILD, ServerSuite


class Swift(ServerSuite, unittest.TestCase):
    # Swift's check whether an object is there is none when two come at once; it says so, with status 501. And it looks for an object's
    # file before it opens it: while it is replaced, a reader is told once in a while that there is none.
    not_passed = "*TellsOneOfSeveralAtOnceThatItPut*:*ShowsReadersTheOldOrTheNewObjectOnly*"

    @staticmethod
    @contextlib.contextmanager
    def server() -> Iterator[int]:
        # Not /tmp, which may be a file system without user attributes.
        with tempfile.TemporaryDirectory(prefix="swift-", dir=BUILD) as directory, swift(Path(directory)) as port:
            yield port

    def test_conformance_when_requests_fail(self) -> None:
        proxy = FaultProxy(self.port, share=1 / 6, seed=1)
        self.addCleanup(proxy.close)
        # But for the suite's largest tests, which have nothing more for this.
        left_out = f"-{self.not_passed}:*ListsMoreObjects*:*RemovesMoreAtOnce*:*PutsWhileNeighbours*"
        # A request that is answered later than that is only asked again.
        haste = {"S3_TEST_PAUSE_MS": "2", "S3_TEST_STALL_SECONDS": "2"}
        self.conformance(proxy.port, f"--gtest_filter={left_out}", **haste)
        # Parts of objects and listings, which the suite asks for but seldom.
        often = ["--gtest_filter=*ReadsRanges*:*ListsSizes*", "--gtest_repeat=15"]
        self.conformance(proxy.port, *often, **haste)
        self.assertEqual(set(proxy.faults), set(FAULTS), "not every fault has come up")

    def test_certificates_are_checked(self) -> None:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))

        def make_certificate(name: str, address: str) -> Path:
            pair = directory / name
            subprocess.run(
                [
                    "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName={address}", "-keyout", pair, "-out", f"{pair}.crt",
                ],
                check=True, capture_output=True,
            )  # fmt: skip
            pair.write_text(pair.read_text() + Path(f"{pair}.crt").read_text())
            return pair

        def list_backups(certificate: Path, **more: str) -> subprocess.CompletedProcess:
            proxy = FaultProxy(self.port, certificate=certificate)
            self.addCleanup(proxy.close)
            there = environment(self.port) | {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{proxy.port}"} | more
            engine = [BUILD / "bin/backup_engine", "list", "s3://conformance/tls/"]
            return subprocess.run(engine, env=there, capture_output=True, text=True, check=False, timeout=20)

        ours = make_certificate("ours", "IP:127.0.0.1")
        others = make_certificate("others", "DNS:other.example")
        untrusted = list_backups(ours)
        self.assertNotEqual(untrusted.returncode, 0)
        self.assertIn("certificate", untrusted.stderr)
        trusted = list_backups(ours, AWS_CA_BUNDLE=f"{ours}.crt")
        self.assertIn("the destination holds no backup store", trusted.stderr)
        misnamed = list_backups(others, AWS_CA_BUNDLE=f"{others}.crt")
        self.assertIn("subject name", misnamed.stderr)
        absent = list_backups(ours, AWS_CA_BUNDLE="/nonexistent.crt")
        self.assertIn("/nonexistent.crt", absent.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
