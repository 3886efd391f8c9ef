"""The client of S3 on another real server, Ceph's radosgw."""
# budget: 300

import contextlib
import unittest
from pathlib import Path

from servers import ceph
from suite import ServerSuite


class Ceph(ServerSuite, unittest.TestCase):
    @staticmethod
    def server() -> contextlib.AbstractContextManager[int]:
        return ceph(Path("/var/tmp"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
