"""A root and a pool as Rancher Convoy 0.5.2 leaves them when it is stopped."""

import json
import os
from pathlib import Path

from support import DATA, META, MIB, ROOT, device_digest, file_digests, run

DRIVER_ROOT = ROOT / "devicemapper"
POOL_FILE = DRIVER_ROOT / "devicemapper.cfg"
CREATED = "Mon Nov 23 00:13:37 +0000 2026"
SIZE = 16 * MIB
SECTORS = SIZE // 512


def sectors_of(device: str) -> int:
    return int(run("blockdev", "--getsz", device).stdout)


def message(text: str) -> None:
    run("dmsetup", "message", "convoy-pool", "0", text)


def uuid_of(name: str) -> str:
    return run("dmsetup", "info", "-c", "--noheadings", "-o", "uuid", name).stdout.strip()


def activate(name: str, thin_id: int) -> None:
    run("dmsetup", "create", name, "--table", f"0 {SECTORS} thin /dev/mapper/convoy-pool {thin_id}")


def thin_digest(thin_id: int) -> str:
    activate("digest", thin_id)
    digest = device_digest("/dev/mapper/digest")
    run("dmsetup", "remove", "digest")
    return digest


class OldConvoy:
    """What a host has after Convoy was stopped: files, an active pool with its volumes, mounts."""

    def __init__(self) -> None:
        self.mountpoints = {"db": DRIVER_ROOT / "mounts" / "db", "logs": ROOT / "elsewhere"}
        for directory in self.mountpoints.values():
            directory.mkdir(parents=True)
        # As the Docker code made it that Convoy used.
        run(
            "dmsetup", "create", "convoy-pool", "--table",
            f"0 {sectors_of(DATA)} thin-pool {META} {DATA} 4096 32768 1 skip_block_zeroing",
        )  # fmt: skip
        for name, thin_id in (("db", 1), ("app", 3), ("logs", 5)):
            message(f"create_thin {thin_id}")
            activate(name, thin_id)
            run("mkfs.ext4", "-q", f"/dev/mapper/{name}")
        for name, directory in self.mountpoints.items():
            run("mount", f"/dev/mapper/{name}", directory)
        self.write("db", "first")
        self.snapshot("db", 1, 2)
        self.write("db", "second")
        self.snapshot("db", 1, 4)
        self.write("logs", "only")
        # A backup was cut short.
        activate("s2", 4)
        self.files = {name: file_digests(directory) for name, directory in self.mountpoints.items()}
        self.snapshot_digests = {"s1": thin_digest(2), "s2": thin_digest(4)}
        self.write_files()

    def write(self, volume: str, name: str) -> None:
        (self.mountpoints[volume] / name).write_bytes(os.urandom(MIB))

    def snapshot(self, name: str, origin: int, thin_id: int) -> None:
        os.sync()
        run("dmsetup", "suspend", name)
        message(f"create_snap {thin_id} {origin}")
        run("dmsetup", "resume", name)

    def write_files(self) -> None:
        self.write_json(
            ROOT / "convoy.cfg",
            Root=str(ROOT), DriverList=["devicemapper"], DefaultDriver="devicemapper", MountNamespaceFD="",
            IgnoreDockerDelete=False, CreateOnDockerMount=False, CmdTimeout="2m0s",
        )  # fmt: skip
        self.write_json(
            POOL_FILE,
            Root=str(DRIVER_ROOT), DataDevice=DATA, MetadataDevice=META, ThinpoolDevice="/dev/mapper/convoy-pool",
            ThinpoolSize=sectors_of(DATA) * 512, ThinpoolBlockSize=4096, DefaultVolumeSize=100 << 30, LastDevID=7,
            Filesystem="ext4",
        )  # fmt: skip
        snapshots = {
            name: {"Name": name, "CreatedTime": CREATED, "DevID": thin_id, "Activated": name == "s2"}
            for name, thin_id in (("s1", 2), ("s2", 4))
        }
        self.write_volume("db", 1, MountPoint=str(self.mountpoints["db"]), Snapshots=snapshots)
        self.write_volume("app", 3)
        self.write_volume("logs", 5, MountPoint=str(self.mountpoints["logs"]))

    def write_volume(self, name: str, thin_id: int, file: str = "", **more: object) -> None:
        fields = {"Size": SIZE, "Base": "", "MountPoint": "", "CreatedTime": CREATED, "Snapshots": {}, "Filesystem": "ext4"}
        path = DRIVER_ROOT / f"devicemapper_volume_{file or name}.json"
        self.write_json(path, **({"Name": name, "DevID": thin_id} | fields | more))

    def write_json(self, path: Path, **fields: object) -> None:
        path.write_text(json.dumps(fields))


def old_files() -> list[str]:
    return sorted(path.name for path in [*ROOT.glob("*.cfg*"), *DRIVER_ROOT.glob("devicemapper*")])
