"""Docker's plugin protocol, all eight calls and Plugin.Activate, spoken as Docker does."""
# budget: 400

import unittest
from pathlib import Path

from support import PoolTest, convoy, convoy_error, convoy_json, docker, mounts

MOUNTPOINT = "/var/lib/convoy/devicemapper/mounts/db"


class Protocol(PoolTest):
    def test_handshake(self) -> None:
        self.assertEqual(docker("Plugin.Activate"), {"Implements": ["VolumeDriver"]})
        self.assertEqual(docker("VolumeDriver.Capabilities"), {"Capabilities": {"Scope": "local"}})

    def test_create_get_list_path_remove(self) -> None:
        self.assertEqual(docker("VolumeDriver.List"), {"Volumes": []})
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"}), {})
        self.assertEqual(docker("VolumeDriver.Create", Name="db", Opts=None), {})  # once more is success
        self.assertEqual(docker("VolumeDriver.Create", Name="plain", Opts=None), {})
        self.assertEqual(convoy_json("inspect", "db")["DriverInfo"]["Size"], str(64 << 20))
        self.assertEqual(convoy_json("inspect", "plain")["DriverInfo"]["Size"], str(100 << 30))
        self.assertEqual(docker("VolumeDriver.Get", Name="db"), {"Volume": {"Name": "db", "Mountpoint": ""}})
        self.assertEqual([volume["Name"] for volume in docker("VolumeDriver.List")["Volumes"]], ["db", "plain"])
        self.assertEqual(docker("VolumeDriver.Path", Name="db"), {"Mountpoint": ""})
        self.assertEqual(docker("VolumeDriver.Remove", Name="plain"), {})
        self.assertEqual(docker("VolumeDriver.Remove", Name="plain"), {})  # of an unknown name: success
        self.assertIn("no volume 'plain'", docker("VolumeDriver.Get", Name="plain")["Err"])

    def test_two_containers_on_one_volume(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        for user in ("first", "second", "second"):
            self.assertEqual(docker("VolumeDriver.Mount", Name="db", ID=user), {"Mountpoint": MOUNTPOINT})
        Path(MOUNTPOINT, "file").write_text("shared")
        self.assertEqual(docker("VolumeDriver.Path", Name="db"), {"Mountpoint": MOUNTPOINT})
        self.assertIn("mounted at", docker("VolumeDriver.Remove", Name="db")["Err"])

        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="first"), {})
        self.assertEqual(Path(MOUNTPOINT, "file").read_text(), "shared")
        self.assertIn("by the mount ids second", convoy_error("umount", "db"))
        # The reference count outlives the daemon.
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="first"), {})
        self.assertEqual(mounts(), [MOUNTPOINT])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="second"), {})
        self.assertEqual(mounts(), [])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="second"), {})
        self.assertEqual(docker("VolumeDriver.Remove", Name="db"), {})

    def test_the_command_line_is_one_more_user(self) -> None:
        convoy("create", "db", "--size", "64M")
        convoy("mount", "db")
        docker("VolumeDriver.Mount", Name="db", ID="container")
        docker("VolumeDriver.Unmount", Name="db", ID="container")
        self.assertEqual(mounts(), [MOUNTPOINT])
        convoy("umount", "db")
        self.assertEqual(mounts(), [])

    def test_a_busy_mount_is_reported_and_not_forgotten(self) -> None:
        docker("VolumeDriver.Create", Name="db", Opts={"size": "64M"})
        docker("VolumeDriver.Mount", Name="db", ID="container")
        with Path(MOUNTPOINT, "open").open("w"):
            self.assertIn("still uses a file", docker("VolumeDriver.Unmount", Name="db", ID="container")["Err"])
        self.assertEqual(mounts(), [MOUNTPOINT])
        self.assertEqual(docker("VolumeDriver.Unmount", Name="db", ID="container"), {})

    def test_create_from_a_backup(self) -> None:
        convoy("create", "db", "--size", "64M")
        Path(convoy("mount", "db"), "file").write_text("kept")
        convoy("snapshot", "create", "db", "--name", "s1")
        url = convoy("backup", "create", "s1", "--dest", self.url)
        self.assertEqual(docker("VolumeDriver.Create", Name="copy", Opts={"backup": url}), {})
        mountpoint = docker("VolumeDriver.Mount", Name="copy", ID="container")["Mountpoint"]
        self.assertEqual(Path(mountpoint, "file").read_text(), "kept")
        docker("VolumeDriver.Unmount", Name="copy", ID="container")

    def test_what_is_refused(self) -> None:
        for options, sentence in (
            ({"size": "lots"}, "is not a size"),
            ({"colour": "red"}, "unknown option 'colour'"),
            ({"driver": "ebs"}, "no driver 'ebs'"),
            ({"backup": "nonsense"}, "nonsense"),
        ):
            self.assertIn(sentence, docker("VolumeDriver.Create", Name="x", Opts=options)["Err"])
        self.assertIn("can't be the name", docker("VolumeDriver.Create", Name="../../evil", Opts={})["Err"])
        self.assertIn("no volume", docker("VolumeDriver.Mount", Name="unknown", ID="container")["Err"])
        self.assertIn("not a text", docker("VolumeDriver.Get", Name=7)["Err"])
        # The start of a UUID is a name for the command line, not for Docker.
        convoy("create", "db", "--size", "64M")
        start = convoy_json("inspect", "db")["UUID"][:12]
        self.assertEqual(convoy_json("inspect", start)["Name"], "db")
        self.assertIn("no volume", docker("VolumeDriver.Get", Name=start)["Err"])


class KeepAndCreate(PoolTest):
    options = ("--ignore-docker-delete", "--create-on-docker-mount")

    def test_docker_deletes_nothing_and_mounts_make_volumes(self) -> None:
        info = convoy_json("info")["General"]
        self.assertEqual((info["IgnoreDockerDelete"], info["CreateOnDockerMount"]), (True, True))
        self.assertIn("Mountpoint", docker("VolumeDriver.Mount", Name="new", ID="container"))
        docker("VolumeDriver.Unmount", Name="new", ID="container")
        self.assertEqual(docker("VolumeDriver.Remove", Name="new"), {})
        self.assertEqual(list(convoy_json("list")), ["new"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
