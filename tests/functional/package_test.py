"""What the Debian package holds. It is installed in tests/vm/systemd_test.py, and in a clean Debian in tests/package."""
# budget: 60
# needs the package

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("CONVOY_BUILD_DIR", TREE / "build"))


def run(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=50).stdout


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        version = re.search(r"project\(convoy VERSION (\S+)", (TREE / "CMakeLists.txt").read_text())
        assert version
        (cls.package,) = BUILD.glob(f"convoy_{version[1]}_*.deb")
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.root = Path(directory.name)
        run("dpkg-deb", "--raw-extract", cls.package, cls.root)

    def field(self, name: str) -> str:
        return run("dpkg-deb", "--field", self.package, name).strip()

    def test_files(self) -> None:
        listed = [line.split(maxsplit=5) for line in run("dpkg-deb", "--contents", self.package).splitlines()]
        files = {path: mode for mode, _, _, _, _, path in listed if mode.startswith("-")}
        programs = {f"./usr/bin/{name}" for name in ("convoy", "convoy-pdata_tools", "dm_dev_partition.sh")}
        programs |= {f"./usr/libexec/convoy/{name}" for name in ("convoy-daemon", "convoy-suspend-guard")}
        expected = {
            "./etc/default/convoy", "./etc/docker/plugins/convoy.spec", "./lib/systemd/system/convoy.service",
            *programs,
            "./usr/share/bash-completion/completions/convoy", "./usr/share/zsh/vendor-completions/_convoy",
            "./usr/share/fish/vendor_completions.d/convoy.fish", "./usr/share/doc/convoy/README.md",
            *(f"./usr/share/man/man8/{page.name}" for page in (TREE / "packaging/man").iterdir()),
        }  # fmt: skip
        self.assertLessEqual(expected, set(files))
        self.assertEqual({path for path in set(files) - expected if not path.startswith("./usr/share/doc/convoy/")}, set())
        self.assertEqual({path for path, mode in files.items() if mode == "-rwxr-xr-x"}, programs)
        self.assertEqual({(mode, owner) for mode, owner, *_ in listed} - {("-rwxr-xr-x", "root/root")},
                         {("drwxr-xr-x", "root/root"), ("-rw-r--r--", "root/root")})  # fmt: skip

    def test_relations(self) -> None:
        self.assertEqual(self.field("Recommends"), "ca-certificates, fdisk, xfsprogs")
        for package in ("e2fsprogs", "libc6 (>=", "libdevmapper", "libmicrohttpd", "libsqlite3"):
            self.assertIn(package, self.field("Depends"))

    def test_what_administrators_change_is_theirs(self) -> None:
        configuration = sorted(f"/{path.relative_to(self.root)}" for path in self.root.glob("etc/**/*") if path.is_file())
        self.assertEqual((self.root / "DEBIAN/conffiles").read_text().split(), configuration)

    def test_the_program_runs(self) -> None:
        self.assertEqual(run(self.root / "usr/bin/convoy", "--version"), f"convoy {self.field('Version')}\n")

    def test_the_unit_is_sound(self) -> None:
        # systemd-analyze looks for programs and pages where the host has them.
        unit = (self.root / "lib/systemd/system/convoy.service").read_text()
        unit = re.sub("^Documentation=.*\n", "", unit, flags=re.M).replace("/usr/bin/convoy", "/bin/true")
        copy = self.root / "convoy.service"
        copy.write_text(unit)
        verify = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
        complaints = [line for line in verify.stderr.splitlines() if "convoy" in line]
        self.assertEqual((verify.returncode, complaints), (0, []))

    def test_the_unit_keeps_the_hosts_mounts(self) -> None:
        unit = (self.root / "lib/systemd/system/convoy.service").read_text()
        directives = set(re.findall(r"^(\w+)=", unit, re.M))
        # man systemd.exec: each of these makes a mount namespace.
        pattern = "Private.*|Protect.*|ReadOnly.*|ReadWrite.*|Inaccessible.*|Bind.*|MountFlags|Root.*|TemporaryFileSystem|DynamicUser"
        self.assertEqual({name for name in directives if re.fullmatch(pattern, name)}, set())

    def test_docker_is_told_the_daemons_default_socket(self) -> None:
        socket = re.search(r"--socket TEXT=(\S+)", run(self.root / "usr/bin/convoy", "--help"))
        assert socket
        self.assertEqual((self.root / "etc/docker/plugins/convoy.spec").read_text(), f"unix://{socket[1]}\n")
        self.assertIn(f"CONVOY_SOCKET={socket[1]} ", (self.root / "lib/systemd/system/convoy.service").read_text())


if __name__ == "__main__":
    unittest.main()
