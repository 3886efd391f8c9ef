"""The client of S3 on another real server, Ceph's radosgw."""
# budget: 300

import unittest

from servers import ceph
from suite import ServerSuite


class Ceph(ServerSuite, unittest.TestCase):
    server = staticmethod(ceph)


if __name__ == "__main__":
    unittest.main(verbosity=2)
