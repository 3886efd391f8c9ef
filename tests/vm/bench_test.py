"""The benchmarks run, on little; their figures are of no interest here."""
# budget: 360
# machine: --disk meta=64M

import os
import subprocess
import unittest
from pathlib import Path

from support import META, TREE, dm_devices, run, thin_check


class Bench(unittest.TestCase):
    def test_delta(self) -> None:
        run(TREE / "bench/delta_pool.py", "3000")
        self.assertEqual(dm_devices(), [])
        thin_check()
        environment = os.environ | {"PYTHONPATH": str(TREE / "bench")}
        result = subprocess.run(
            [TREE / "bench/delta.py", "3000", META], env=environment, capture_output=True, text=True, check=False
        )
        print(result.stdout, result.stderr)
        self.assertEqual(result.returncode, 0)
        rows = [line.split() for line in result.stdout.splitlines() if " ms " in line]
        self.assertEqual([row[0] for row in rows], ["0", "1", "100", "100", "3000", "3000", "3000", "3000"])
        self.assertTrue(Path(os.environ["VM_OUT"], "made").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
