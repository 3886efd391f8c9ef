"""Docker and the daemon are restarted while containers use volumes, which lose nothing."""
# budget: 1200
# machine: --memory 2G --disk data=2G --disk meta=64M

import signal
import subprocess
import threading
import time
import unittest

from dockerd import DRIVER, DockerTest, docker, docker_error, engine, start_docker, wait_for
from support import convoy_json, mounts


def setUpModule() -> None:
    start_docker()


class Restarts(DockerTest):
    def test_containers_write_on_whatever_is_restarted(self) -> None:
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.dockerd.stop()
        self.dockerd.start("--live-restore")
        self.addCleanup(self.dockerd.stop)  # and so it is started again without the option
        self.start_writer("writer")
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.daemon.stop(how)
            self.assert_writes_on("writer")
            self.daemon.start()
            self.assert_writes_on("writer")
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.dockerd.stop(how)
            self.assert_writes_on("writer")
            self.dockerd.start("--live-restore")
            self.assert_writes_on("writer")
            self.assertEqual(docker("ps", "--format", "{{.Names}}"), "writer")
            self.assertIn("volume is in use", docker_error("volume", "rm", "db"))
        docker("kill", "writer")
        wait_for("the last user's end unmounts it", lambda: mounts() == [])
        self.assert_nothing_lost("writer")

    def test_a_restart_of_docker_that_ends_containers_starts_them_again(self) -> None:
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.start_writer("writer", "db", "--restart=always")
        for how in (signal.SIGTERM, signal.SIGKILL):
            self.assert_writes_on("writer")
            before = self.started_at("writer")
            self.dockerd.stop(how)
            self.dockerd.start()
            wait_for("the container is started again", lambda: self.started_at("writer") != before)
        self.assert_writes_on("writer")
        docker("kill", "writer")
        wait_for("the last user's end unmounts it", lambda: mounts() == [])
        self.assert_nothing_lost("writer")

    def started_at(self, container: str) -> str:
        return engine(f"/containers/{container}/json")["State"]["StartedAt"]

    def test_docker_waits_for_a_daemon_that_starts_after_it(self) -> None:
        docker("volume", "create", "-d", DRIVER, "-o", "size=64M", "db")
        self.start_writer("writer", "db", "--restart=always")
        self.assert_writes_on("writer")
        before = self.started_at("writer")
        self.dockerd.stop()
        self.assertEqual(mounts(), [])
        self.daemon.stop()
        starting = threading.Thread(target=self.dockerd.start)
        starting.start()
        time.sleep(5)  # Docker tries again, after 1, 2, 4 … seconds
        self.daemon.start()
        starting.join()
        wait_for("the container is started again", lambda: self.started_at("writer") != before)
        self.assert_writes_on("writer")
        # The same, when Docker is up already.
        self.daemon.kill()
        command = subprocess.Popen(
            ["docker", "volume", "create", "-d", DRIVER, "-o", "size=64M", "late"], stdout=subprocess.DEVNULL
        )
        self.addCleanup(command.kill)
        time.sleep(2)
        self.assertIsNone(command.poll())
        self.daemon.start()
        self.assertEqual(command.wait(timeout=60), 0)
        self.assertIn("late", convoy_json("list"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
