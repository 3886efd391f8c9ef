"""Deltas are right while the kernel rewrites the pool's trees, and they would not be without the metadata snapshot. The metadata device
is so small that the kernel soon uses again what it has freed."""
# budget: 600
# long budget: 1500
# machine: --disk meta=2M

import os
import random
import unittest

from support import META, dm_devices, run, thin_check, wipe

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))
ZERO = "forgetful"


class DeltaHammer(unittest.TestCase):
    def setUp(self) -> None:
        wipe(META)
        # What is written goes nowhere: only the mappings matter.
        run("modprobe", "dm-zero")
        run("dmsetup", "create", ZERO, "--table", f"0 {4 << 21} zero")
        self.addCleanup(run, "dmsetup", "remove", ZERO)

    def hammer(self, mode: str, deltas: int) -> str:
        seed = os.environ.get("CONVOY_TEST_SEED") or str(random.getrandbits(32))
        result = run("delta_hammer", mode, META, f"/dev/mapper/{ZERO}", str(deltas), seed, check=False, timeout=1400)
        print(result.stdout, result.stderr)
        self.assertEqual(result.returncode, 0, f"to repeat it: CONVOY_TEST_SEED={seed}")
        self.assertEqual(dm_devices(), [ZERO])
        thin_check()
        return result.stdout

    def test_every_delta_under_a_metadata_snapshot_is_right(self) -> None:
        self.hammer("held", 20000 if LONG else 1000)

    def test_without_one_they_go_wrong(self) -> None:
        """So the writer does hit what is being read."""
        self.hammer("live", 2000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
