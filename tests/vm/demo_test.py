"""What ./dev demo shows, on fewer files: it ends well, and nothing of it stays in a kernel that is the host's own."""
# budget: 400
# machine: --memory 2G --disk data=12G

import os
import unittest

from support import TREE, dm_devices, loop_devices, mounts, run


class Demo(unittest.TestCase):
    def test_from_the_first_step_to_the_last(self) -> None:
        before = self.what_is_there()
        told = run(TREE / "tools/demo.sh", "inside", "30000000", timeout=300).stdout
        self.assertRegex(told, r"    All [1-9]\d+ checksums are equal\.")
        for line in ("create and mount", "first backup", "snapshot and incremental backup", "restore"):
            self.assertRegex(told, rf"\n  {line} +[\d.]+ s ")
        self.assertEqual(self.what_is_there(), before)

    @staticmethod
    def what_is_there() -> tuple[list[str], ...]:
        return dm_devices(), loop_devices(), mounts(), sorted(os.listdir("/var/tmp"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
