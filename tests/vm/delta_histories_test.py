"""Our delta equals Debian's thin_delta, for random histories made in a real pool."""
# budget: 800
# long budget: 4000
# machine: --disk data=1G --disk meta=64M

import os
import random
import unittest

from support import DATA, META, dm_devices, run, thin_check

LONG = bool(os.environ.get("CONVOY_TEST_LONG"))


class DeltaHistories(unittest.TestCase):
    def test_our_delta_is_thin_deltas(self) -> None:
        seed = os.environ.get("CONVOY_TEST_SEED") or str(random.getrandbits(32))
        histories, timeout = ("1000", 3800) if LONG else ("100", 780)
        result = run("delta_histories", DATA, META, histories, seed, check=False, timeout=timeout)
        print(result.stdout, result.stderr)
        self.assertEqual(result.returncode, 0, f"to repeat it: CONVOY_TEST_SEED={seed}")
        self.assertEqual(dm_devices(), [])
        thin_check()


if __name__ == "__main__":
    unittest.main(verbosity=2)
