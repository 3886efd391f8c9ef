"""dm_dev_partition.sh divides a disk for a pool, and refuses what is no empty disk."""
# budget: 600
# machine: --disk nvme=1G

import os
import subprocess
import unittest
from pathlib import Path

from support import (
    GIB,
    MIB,
    ROOT,
    SOCKET,
    TREE,
    Daemon,
    allow_kernel,
    convoy,
    dm_devices,
    pool_options,
    remove_tree,
    run,
    shut_down_pool,
    thin_check,
)

SCRIPT = TREE / "packaging/dm_dev_partition.sh"
UBD = os.environ["DISK_NVME"]


def partition(*words: str | Path) -> subprocess.CompletedProcess:
    return run("bash", SCRIPT, *words, check=False)


class Partition(unittest.TestCase):
    def loop(self, size: int, *options: str) -> str:
        file = Path(f"/tmp/disk-{len(list(Path('/tmp').glob('disk-*')))}")
        run("truncate", "-s", str(size), file)
        self.addCleanup(file.unlink)
        device = run("losetup", *options, "--find", "--show", file).stdout.strip()
        self.addCleanup(run, "losetup", "-d", device)
        return device

    def refused(self, sentence: str, *words: str) -> None:
        before = run("lsblk", "-rno", "NAME").stdout
        for write in ([], ["--write-to-disk"]):
            result = partition(*write, *words)
            self.assertEqual((result.returncode, result.stdout), (1, ""), words)
            self.assertIn(sentence, result.stderr)
        self.assertEqual(run("lsblk", "-rno", "NAME").stdout, before)

    def test_the_documented_example(self) -> None:
        device = self.loop(100 * GIB)
        plan = (
            f"{device} size is 107374182400 bytes\n"
            "Maximum volume and snapshot counts is 10000\n"
            "Metadata Device size would be 42627072 bytes\n"
            "Data Device size would be 107331555328 bytes\n"
            "Data Device would be 209631944 sectors\n"
        )
        dry = partition(device)
        self.assertEqual((dry.returncode, dry.stdout, dry.stderr), (0, plan, ""))
        self.assertFalse(Path(device + "p1").exists())
        written = self.write(device, plan, "dos")
        self.assertIn("Disklabel type: dos", written)
        self.refused(f"{device} already partitioned, can't start partition", device)
        self.refused("is a partition; give the whole disk", device + "p1")

    def write(self, device: str, plan: str, label: str, *words: str) -> str:
        """Divides the device and starts the daemon, by the very command that is shown."""
        result = partition("--write-to-disk", *words, device)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertTrue(result.stdout.startswith(plan + f"Start partitioning of {device}\nComplete the partition of {device}\n"))
        *_, advice, command = result.stdout.splitlines()
        self.assertEqual(advice, "Now you can start Convoy Daemon using:")
        data, metadata = (word.split("=")[1] for word in command.split() if "=" in word)
        estimate = int(plan.split("Metadata Device size would be ")[1].split()[0])
        size = int(run("blockdev", "--getsize64", metadata).stdout)
        self.assertLessEqual(estimate, size)
        self.assertLess(size, estimate + 2 * MIB)
        disk_size = int(run("blockdev", "--getsize64", device).stdout)
        self.assertLess(disk_size - 3 * MIB, size + int(run("blockdev", "--getsize64", data).stdout))
        for line in run("sfdisk", "--dump", device).stdout.splitlines():
            if "start=" in line:
                self.assertEqual(int(line.split("start=")[1].split(",")[0]) % 2048, 0)
        self.assertIn(f"label: {label}", run("sfdisk", "--dump", device).stdout)
        # The last four words of options are the pool's.
        words_of_pool = command.split()[4:]
        self.assertEqual(command.split()[:4], ["convoy", "daemon", "--drivers", "devicemapper"])
        remove_tree(ROOT)
        daemon = Daemon(pool=words_of_pool)
        convoy("create", "db", "--size", "64M")
        convoy("delete", "db")
        self.assertEqual(daemon.stop(), 0)
        shut_down_pool()
        thin_check(metadata)
        return result.stdout

    def plan_of(self, device: str, *words: str) -> str:
        return partition(*words, device).stdout

    def test_more_than_mbr_can_address(self) -> None:
        device = self.loop(3 << 40, "--partscan")
        self.write(device, self.plan_of(device, "-m", "20000"), "gpt", "-m", "20000")

    def test_a_disk_whose_name_ends_in_a_letter(self) -> None:
        self.addCleanup(run, "wipefs", "--all", "--quiet", UBD)
        self.write(UBD, self.plan_of(UBD, "--max-thins=100"), "dos", "--max-thins=100")
        self.assertTrue(Path(UBD + "1").exists())

    def test_small_disks(self) -> None:
        self.refused("is too small", self.loop(4 * MIB))
        self.refused("give a smaller --max-thins", self.loop(20 * MIB))
        device = self.loop(20 * MIB)
        allow_kernel("reached low water mark for data device")  # a file system of 64 MiB takes most of it
        self.write(device, self.plan_of(device, "-m", "511"), "dos", "-m", "511")

    def test_what_is_no_empty_disk(self) -> None:
        device = self.loop(300 * MIB)
        run("mkfs.ext4", "-q", device)
        self.refused(f"{device} holds ext4", device)
        Path("/mnt/disk").mkdir(exist_ok=True)
        run("mount", device, "/mnt/disk")
        self.refused(f"{device} is mounted", device)
        run("umount", "/mnt/disk")
        run("mkswap", "-f", "-q", device)
        self.refused(f"{device} holds swap", device)
        run("wipefs", "--all", "--quiet", device)
        self.refused("its first 4 KiB are not zero", device)  # ext4's superblock, less its name
        self.clear(device)
        run("dmsetup", "create", "holder", "--table", f"0 8 linear {device} 0")
        self.refused(f"{device} is held by another device: dm-", device)
        self.refused("/dev/mapper/holder is not a whole disk but of type dm", "/dev/mapper/holder")
        run("dmsetup", "remove", "holder")
        self.assertEqual(dm_devices(), [])
        # Nothing at its start, but in its middle what an earlier partition held.
        run("mkfs.ext4", "-q", "-E", f"offset={MIB}", device, "64M")
        self.refused("holds ext4 1048576 bytes from its start", device)
        self.refused("read-only", self.loop(300 * MIB, "--read-only"))

    def clear(self, device: str) -> None:
        run("dd", f"of={device}", "bs=4096", "count=1", "if=/dev/zero", "conv=notrunc,fsync", "status=none")

    def test_a_disk_with_two_signatures(self) -> None:
        device, other = self.loop(400 * MIB), self.loop(400 * MIB)
        run("mkfs.ext4", "-q", device)
        run("mkfs.xfs", "-q", other)
        run("dd", f"if={other}", f"of={device}", "bs=512", "count=1", "conv=notrunc,fsync", "status=none")
        self.refused("holds several signatures", device)

    def test_the_disks_of_a_pool(self) -> None:
        data, metadata = self.loop(300 * MIB), self.loop(300 * MIB)
        remove_tree(ROOT)
        daemon = Daemon(pool=pool_options(data, metadata))
        self.assertEqual(daemon.stop(), 0)
        shut_down_pool()
        for device in (data, metadata):
            self.refused("its first 4 KiB are not zero", device)

    def test_a_place_for_a_partition_that_is_not_empty(self) -> None:
        device = self.loop(300 * MIB)
        run("dd", "if=/dev/urandom", f"of={device}", "bs=4096", "seek=256", "count=1", "conv=notrunc,fsync", "status=none")
        self.refused("holds something that is not zero 1048576 bytes from its start", device)

    def test_mistakes(self) -> None:
        device = self.loop(300 * MIB)
        self.refused("give the disk to divide")
        self.refused("/dev/nothing does not exist", "/dev/nothing")
        self.refused("/etc/passwd is not a block device", "/etc/passwd")
        self.refused("there is no option --nonsense", "--nonsense", device)
        self.refused("give one device, not", device, UBD)
        self.refused("-m needs a number", device, "-m")
        for number in ("0", "many", "16777217", "-1"):
            self.refused(f"--max-thins {number}: give a number", "-m", number, device)
        self.refused("can't have more than", "-m", "5000000", device)
        self.assertIn("Usage: ", partition("--help").stdout)
        self.assertFalse(SOCKET.exists())


if __name__ == "__main__":
    # Of the loop devices' file system, which is in memory.
    allow_kernel("operation not supported error, dev loop.*WRITE_ZEROES")
    unittest.main(verbosity=2)
