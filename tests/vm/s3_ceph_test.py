"""The life of a backup in S3 on another real server, Ceph's radosgw: made, listed, verified, read by others, restored elsewhere,
deleted."""
# budget: 900
# machine: --memory 4G --disk s3=12G --disk data2=4G --disk meta2=64M

import unittest

import s3_test
from support import PoolTest

from servers import ceph  # where s3_test finds it  # isort: skip


class S3OnCeph(s3_test.Life, PoolTest):
    server = staticmethod(ceph)


if __name__ == "__main__":
    unittest.main(verbosity=2)
