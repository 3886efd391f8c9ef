"""The client of S3 on a real server, OpenStack Swift; through a proxy that lets one in six requests fail; and through TLS."""
# budget: 400

import contextlib
import random
import subprocess
import tempfile
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_proxy import FAULTS, FaultProxy
from servers import environment, swift
from suite import BLOCK, BUILD, MIB, Engine, ServerSuite


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
        # Parts of objects, listings, and bodies that don't fit into a socket, which the suite has but seldom.
        often = ["--gtest_filter=*ReadsRanges*:*ListsSizes*:*GivesBack*", "--gtest_repeat=4"]
        self.conformance(proxy.port, *often, **haste)
        self.assertEqual(set(proxy.faults), set(FAULTS), "not every fault has come up")

    def test_requests_are_few(self) -> None:
        proxy = FaultProxy(self.port)
        self.addCleanup(proxy.close)
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        image, blocks = directory / "image", directory / "blocks"
        image.write_bytes(random.Random(1).randbytes(96 * MIB))
        engine = Engine(proxy.port, "s3://conformance/few/")
        backups: list[str] = []

        def requests(what: Callable[[], object]) -> int:
            before = proxy.requests
            what()
            return proxy.requests - before

        def back_up(changed: list[int]) -> None:
            blocks.write_text("".join(f"{at} {BLOCK}\n" for at in changed))
            backups.append(engine.create(image, *([backups[-1], blocks] if backups else [])))

        counts = {
            "full": requests(lambda: back_up([])),
            "unchanged": requests(lambda: back_up([])),
        }
        with image.open("r+b") as file:
            file.write(random.Random(2).randbytes(MIB))
        counts |= {
            "changed": requests(lambda: back_up([0])),
            "list": requests(lambda: engine("list")),
            "verify": requests(lambda: engine("verify", backups[-1])),
            "restore": requests(lambda: engine.restore(directory / "restored", backups[-1])),
            "delete": requests(lambda: engine("delete", backups[0])),
            "gc": requests(lambda: engine("gc", backups[-1].split("/")[0])),
        }
        # Six packs and a rest. How many pieces are fetched at once, and so their size, is the machine's.
        most = {"full": 24, "unchanged": 12, "changed": 17, "list": 8, "verify": 90, "restore": 90, "delete": 24, "gc": 36}
        self.assertEqual({name: count for name, count in counts.items() if count > most[name]}, {}, counts)

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
