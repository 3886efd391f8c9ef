"""convoy-pdata_tools prints what Debian's thin-provisioning-tools print, and ends with the same status."""
# budget: 120

import os
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

from metadata_blocks import BITMAP, BLOCK, SUPERBLOCK, seal

TOOLS = Path(os.environ.get("CONVOY_BUILD_DIR", "build")).resolve() / "bin/convoy-pdata_tools"
ENVIRONMENT = os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}


def debians(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)


def ours(*words: str | Path) -> subprocess.CompletedProcess:
    return debians(TOOLS, *words)


def number_at(content: bytes, offset: int) -> int:
    return int.from_bytes(content[offset : offset + 8], "little")


def random_devices(generator: random.Random, devices: int, blocks: int) -> list[str]:
    """Devices as snapshots of each other: runs of mappings, some of which change from one to the next."""
    mappings: dict[int, tuple[int, int]] = {}
    free = iter(range(10**6))
    lines = []
    thin_ids = sorted(generator.sample(range(1 << 24), devices))
    for time, thin_id in enumerate(thin_ids):
        for _ in range(generator.randrange(1, 12)):
            begin = generator.randrange(blocks)
            for block in range(begin, begin + generator.choice((1, 1, 2, 30, 400))):
                mappings.pop(block, None)
                if generator.random() < 0.9:
                    mappings[block] = (next(free), time)
            next(free)
        lines.append(
            f'<device dev_id="{thin_id}" mapped_blocks="{len(mappings)}" transaction="{time}" '
            f'creation_time="{time}" snap_time="{time + 1}">'
        )
        for block, (data, when) in sorted(mappings.items()):
            lines.append(f'<single_mapping origin_block="{block}" data_block="{data}" time="{when}"/>')
        lines.append("</device>")
    return lines


class Metadata(unittest.TestCase):
    """The tools that read metadata, on what thin_restore makes of XML."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.file = self.directory / "metadata"

    def restore(self, lines: list[str], block_sectors: int = 128, blocks: int = 10**6) -> None:
        xml = self.directory / "xml"
        opening = (
            f'<superblock uuid="" time="77" transaction="{1 << 50}" flags="0" version="2" '
            f'data_block_size="{block_sectors}" nr_data_blocks="{blocks}">'
        )
        xml.write_text("\n".join([opening, *lines, "</superblock>\n"]))
        with self.file.open("wb") as file:
            file.truncate(16 << 20)
        made = debians("thin_restore", "-q", "-i", xml, "-o", self.file)
        self.assertEqual(made.returncode, 0, made.stderr)

    def same(self, *words: str | Path) -> str:
        expected, found = debians(*words), ours(*words)
        self.assertEqual(found.stdout, expected.stdout, words)
        self.assertEqual((found.returncode, found.stderr), (0, ""), words)
        self.assertEqual(expected.returncode, 0, words)
        return found.stdout

    def thin_ids(self) -> list[str]:
        return ours("thin_ls", "--no-headers", "-o", "DEV", self.file).stdout.split()

    def check(self, *options: str) -> int:
        """The status of thin_check: Debian's and ours, which agree."""
        words = ["thin_check", *options, self.file]
        expected, found = debians(*words), ours(*words)
        self.assertEqual(found.returncode, expected.returncode, f"{words}: {found.stderr} {expected.stderr}")
        if found.returncode == 0:
            self.assertEqual(found.stdout, expected.stdout)
            if "--ignore-non-fatal-errors" not in options:
                self.assertEqual(found.stderr, expected.stderr)
        elif "-q" in options:
            self.assertEqual((found.stdout, found.stderr), ("", ""))
        else:
            self.assertNotEqual(found.stderr, "")
        return found.returncode

    def check_everything(self) -> None:
        for options in ([], ["-q"], ["--super-block-only"], ["--skip-mappings"], ["--ignore-non-fatal-errors"]):
            self.assertEqual(self.check(*options), 0)
        self.same("thin_dump", self.file)
        self.same("thin_dump", "-f", "human_readable", self.file)
        self.same("thin_dump", "--skip-mappings", self.file)
        self.same("thin_dump", "--repair", self.file)
        self.same("thin_dump", "--dev-id", "999999999", self.file)
        self.same("thin_ls", self.file)
        self.same("thin_ls", "--no-headers", self.file)
        fields = "DEV,TRANSACTION,CREATE_TIME,SNAP_TIME"
        for kind in ("MAPPED", "EXCLUSIVE", "SHARED"):
            fields += f",{kind},{kind}_BLOCKS,{kind}_SECTORS,{kind}_BYTES"
        self.same("thin_ls", "-o", fields, self.file)
        thin_ids = self.thin_ids()
        for first, second in zip(thin_ids, thin_ids[1:] + thin_ids[:1]):
            self.same("thin_dump", "--dev-id", first, "--dev-id", second, self.file)
            self.same("thin_delta", "--snap1", first, "--snap2", second, self.file)
            self.same("thin_delta", "--thin1", first, "--thin2", second, "--verbose", self.file)

    def test_random_devices(self) -> None:
        for seed in range(6):
            with self.subTest(seed=seed):
                generator = random.Random(seed)
                self.restore(random_devices(generator, generator.choice((1, 4, 12)), generator.choice((50, 20000))))
                self.check_everything()

    def test_odd_pools(self) -> None:
        device = '<device dev_id="{}" mapped_blocks="{}" transaction="0" creation_time="0" snap_time="0">'
        for lines in (
            [],
            [device.format(0, 0), "</device>"],
            [device.format((1 << 24) - 1, 0), "</device>"],
            [
                device.format(3, 5),
                '<range_mapping origin_begin="8589934592" data_begin="999995" length="5" time="16777215"/>',
                "</device>",
            ],
        ):
            for block_sectors in (128, 384, 1 << 21):
                self.restore(lines, block_sectors)
                self.check_everything()

    def test_sizes_in_all_magnitudes(self) -> None:
        device = '<device dev_id="{}" mapped_blocks="{}" transaction="0" creation_time="0" snap_time="0">'
        counts = [1, 15, 16, 17, 127, 128, 129, 8191 * 16, 8192 * 16 + 7, 16385 * 16, 10**9, 10**12, 3 * 10**13]
        lines = []
        for thin_id, count in enumerate(counts):
            lines += [device.format(thin_id, count), "</device>"]
        self.restore(lines)
        self.same("thin_ls", self.file)

    def test_changed_only_leaves_out_what_is_the_same(self) -> None:
        self.restore(random_devices(random.Random(9), 3, 2000))
        first, second, _ = self.thin_ids()
        for verbose in ([], ["--verbose"]):
            words = ["thin_delta", "--snap1", first, "--snap2", second, *verbose]
            everything = debians(*words, self.file).stdout
            self.assertIn("<same", everything)
            changed = ours(*words, "--changed-only", self.file).stdout
            expected, left_out = [], False
            for line in everything.splitlines():
                left_out = line.startswith("    <same>") or (left_out and not line.startswith("    </same>"))
                if not (left_out or "<same " in line or "</same>" in line):
                    expected.append(line)
            # Neighbours that only something unchanged had parted are one section of the verbose form.
            text = "\n".join(expected) + "\n"
            for kind in ("different", "left_only", "right_only"):
                text = text.replace(f"    </{kind}>\n    <{kind}>\n", "")
            self.assertEqual(changed, text)

    def test_output_goes_into_a_file(self) -> None:
        self.restore(random_devices(random.Random(1), 2, 50))
        dump = ours("thin_dump", "-o", self.directory / "out", self.file)
        self.assertEqual((dump.returncode, dump.stdout), (0, ""))
        self.assertEqual((self.directory / "out").read_text(), debians("thin_dump", self.file).stdout)

    def test_through_a_link(self) -> None:
        self.restore([])
        link = self.directory / "thin_dump"
        link.symlink_to(TOOLS)
        self.assertEqual(debians(link, self.file).stdout, debians("thin_dump", self.file).stdout)

    def fails(self, sentence: str, *words: str | Path, debian: bool = True) -> None:
        found = ours(*words)
        self.assertIn(sentence, found.stderr)
        self.assertEqual(found.returncode, 1, words)
        if debian:
            self.assertEqual(debians(*words).returncode, 1, words)

    def test_mistakes(self) -> None:
        self.restore(random_devices(random.Random(2), 2, 50))
        thin_id = self.thin_ids()[0]
        self.fails("thin_delta: give the metadata device", "thin_delta", "--snap1", "1", "--snap2", "2")
        self.fails("thin_delta: give --snap2", "thin_delta", "--snap1", thin_id, self.file)
        self.fails("there is no thin device 77", "thin_delta", "--snap1", thin_id, "--snap2", "77", self.file)
        self.fails("thin id 'x' is not a number", "thin_delta", "--snap1", "x", "--snap2", "77", self.file)
        self.fails("there is no thin device 16777216", "thin_delta", "--snap1", "16777216", "--snap2", "1", self.file)
        self.fails("holds no metadata snapshot", "thin_delta", "-m", "--snap1", "1", "--snap2", "2", self.file)
        self.fails("holds no metadata snapshot", "thin_dump", "-m", self.file)
        self.fails("holds no metadata snapshot", "thin_ls", "-m", self.file)
        self.fails("the block of -m 'x' is not a number", "thin_dump", "-mx", self.file)
        self.fails("there is no format 'json'", "thin_dump", "-f", "json", self.file)
        self.fails("one argument too many", "thin_dump", self.file, "more", debian=False)
        self.fails("unrecognized option", "thin_dump", "--nonsense", self.file)
        self.fails("holds no metadata snapshot", "thin_check", "-m", self.file)
        for tool in ("thin_dump", "thin_ls", "thin_check"):
            self.fails(f"{tool}: give the metadata device", tool)
            self.fails("nothing", tool, "/nothing")
            self.fails("", tool, self.directory)
        # Debian's tool ends with SIGABRT.
        self.fails("there is no field 'SIZE'", "thin_ls", "-o", "SIZE", self.file, debian=False)
        self.fails("out", "thin_dump", "-o", self.directory / "no/out", self.file, debian=False)
        unknown = ours("thin_grow")
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("there is no tool 'thin_grow'", unknown.stderr)
        self.assertEqual(ours().returncode, 1)
        with open("/dev/full", "w", encoding="utf-8") as full:
            lost = subprocess.run([TOOLS, "thin_dump", self.file], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(lost.returncode, 1)
        self.assertIn("standard output", lost.stderr)

    def test_damage(self) -> None:
        for size in (0, 4096, 8192):
            with self.file.open("wb") as file:
                file.truncate(size)
            for tool in ("thin_dump", "thin_ls", "thin_check"):
                self.fails("", tool, self.file)
        self.restore(random_devices(random.Random(3), 2, 50))
        content = bytearray(self.file.read_bytes())
        content[100] ^= 1
        self.file.write_bytes(content)
        for tool in ("thin_dump", "thin_ls", "thin_check"):
            self.fails("superblock of the thin pool: its checksum is", tool, self.file)


    def test_damage_in_any_block_is_found_by_thin_check(self) -> None:
        self.restore(random_devices(random.Random(4), 6, 20000))
        good = self.file.read_bytes()
        used = [number for number in range(len(good) // BLOCK) if any(good[number * BLOCK : (number + 1) * BLOCK])]
        self.assertGreater(len(used), 20)
        found = 0
        for number in used:
            content = bytearray(good)
            content[number * BLOCK + 2000] ^= 0x10
            self.file.write_bytes(content)
            found += self.check("-q") if number % 2 else self.check()
        # All but blocks that were written and are used no more.
        self.assertGreater(found, len(used) * 2 // 3)

    def test_what_a_damaged_device_still_has_is_dumped(self) -> None:
        self.restore(random_devices(random.Random(4), 3, 20000))
        whole = ours("thin_dump", self.file).stdout.splitlines()
        good = self.file.read_bytes()
        tried = 0
        for number in range(1, len(good) // BLOCK):
            content = bytearray(good)
            content[number * BLOCK + 2000] ^= 0x10
            self.file.write_bytes(content)
            if "mappings of thin device" not in ours("thin_dump", self.file).stderr:
                continue
            tried += 1
            repaired = ours("thin_dump", "-r", self.file)
            self.assertEqual(repaired.returncode, 0)
            self.assertRegex(repaired.stderr, r"thin device \d+ is not complete: mappings of thin device")
            lines = repaired.stdout.splitlines()
            self.assertLess(len(lines), len(whole))
            self.assertEqual((lines[-1], [line for line in lines if "<device" in line]),
                             ("</superblock>", [line for line in whole if "<device" in line]))  # fmt: skip
            if tried == 10:
                return
        self.fail(f"only {tried} blocks of mappings")

    def test_a_mark_that_a_check_is_needed_is_told_and_is_no_damage(self) -> None:
        self.restore([])
        content = bytearray(self.file.read_bytes())
        content[4] |= 1
        seal(content, 0, SUPERBLOCK)
        self.file.write_bytes(content)
        found, expected = ours("thin_check", self.file), debians("thin_check", self.file)
        self.assertEqual((found.returncode, found.stdout), (0, expected.stdout))
        self.assertIn("marked the metadata as needing a check", found.stderr)
        self.assertEqual(self.check("-q"), 0)

    def test_wrong_counts_are_found_by_thin_check(self) -> None:
        self.restore(random_devices(random.Random(5), 3, 2000))
        content = bytearray(self.file.read_bytes())
        # disk_format.h: the superblock's two space map roots; the index of the metadata's own is one block.
        bitmap = number_at(content, number_at(content, 192 + 16) * BLOCK + 16)
        counts = bitmap * BLOCK + 16
        self.assertEqual(content[counts] & 3, 2)  # block 0, the superblock, is used once
        free = next(block for block in range(16000) if content[counts + block // 4] >> block % 4 * 2 & 3 == 0)
        for block, count, kind in ((free, 2, "leak"), (free, 1, "leak"), (0, 0, "damage"), (0, 1, "leak"), (0, 3, "damage")):
            changed = bytearray(content)
            changed[counts + block // 4] &= 0xFF ^ 3 << block % 4 * 2
            changed[counts + block // 4] |= count << block % 4 * 2
            seal(changed, bitmap, BITMAP)
            self.file.write_bytes(changed)
            self.assertEqual(self.check(), 1)
            self.assertRegex(ours("thin_check", self.file).stderr, rf"the metadata space map.* block {block} (is nowhere|a reference count of)")
            self.assertEqual(self.check("--ignore-non-fatal-errors"), 0 if kind == "leak" else 1)
            self.assertEqual(self.check("--skip-mappings"), 0)
        # The data device's counts are not compared by Debian's tool.
        leaf = number_at(content, 64 + 16)
        room = int.from_bytes(content[leaf * BLOCK + 20 : leaf * BLOCK + 24], "little")
        bitmap = number_at(content, leaf * BLOCK + 32 + room * 8)
        content[bitmap * BLOCK + 16] ^= 3
        seal(content, bitmap, BITMAP)
        self.file.write_bytes(content)
        result = ours("thin_check", self.file)
        self.assertEqual(result.returncode, 1)
        self.assertIn("the data space map gives block 0 a reference count of", result.stderr)


class MetadataSize(unittest.TestCase):
    CASES = (
        "-b 2m -s 100G -m 100000 -u M",
        "-b 4096 -s 209715200 -m 10000 -n -u b",
        "-b 64k -s 1t -m 1",
        "-b 64k -s 1t -m 1000 -u m",
        "-b 64k -s 1t -m 1k -u g",
        "-b 128 -s 1000000 -m 5 -u b",
        "-b 128 -s 1000000 -m 5 -u K -n",
        "-b 128 -s 1000000 -m 5 -u K -nshort",
        "-b 128 -s 1000000 -m 5 -u kib -nlong",
        "-b 128 -s 1000000 -m 5 -u s -nl",
        "-b 1gib -s 16pebi -m 16777215 -u t",
        "-b 128 -s 256 -m 1 -u G",
        "-b 128 -s 256 -m 1 -u E -n",
        "--block-size 128k --pool-size 37M --max-thins 20K --unit P --numeric-only=short",
        "-b 1m -s 1500000000K -m 7 -u p",
        "-b 65536b -s 70000b -m 3",
    )

    def test_prints_what_debians_prints(self) -> None:
        for case in self.CASES:
            words = ["thin_metadata_size", *case.split()]
            expected, found = debians(*words), ours(*words)
            self.assertEqual((found.stdout, found.returncode), (expected.stdout, expected.returncode), case)
            self.assertEqual(found.returncode, 0)

    def test_the_documented_examples(self) -> None:
        self.assertEqual(
            ours("thin_metadata_size", "-b", "2m", "-s", "100G", "-m", "100000", "-u", "M").stdout,
            'thin_metadata_size - 411.15 megabytes estimated metadata area size for "--block-size=2mebibytes '
            '--pool-size=100gigabytes --max-thins=100000"\n',
        )
        words = ["-b", "2m", "-s", "107374182400b", "-m", "10000", "-u", "b", "-n"]
        self.assertEqual(ours("thin_metadata_size", *words).stdout, "42627072\n")

    def test_mistakes(self) -> None:
        for words, sentence in (
            ("", "give a --block-size"),
            ("-b 2m", "give a --pool-size"),
            ("-b 2m -s 1g", "give --max-thins"),
            ("-b 3m -s 1g -m 1", "the block size 3mebibytes is not a power of two"),
            ("-b 2m -s 2m -m 1", "the pool size 2mebibytes is not larger than the block size 2mebibytes"),
            ("-b 2m -s 1q -m 1", "'q' is no unit"),
            ("-b 2m -s 1g -m 1 -u bits", "'bits' is no unit"),
            ("-b 2m -s 1g -m 1 -nmedium", "-n takes 'short' or 'long', not 'medium'"),
            ("-b 2m -s 1g -m 1 --nonsense", "unrecognized option"),
        ):
            found = ours("thin_metadata_size", *words.split())
            self.assertIn(sentence, found.stderr)
            self.assertEqual((found.returncode, found.stdout), (1, ""), words)
            self.assertEqual(debians("thin_metadata_size", *words.split()).returncode, 1, words)
        self.assertIn("is too large", ours("thin_metadata_size", "-b", "2m", "-s", "99999999Y", "-m", "1").stderr)


class Help(unittest.TestCase):
    def test_every_tool_explains_itself(self) -> None:
        tools = [line.split()[0] for line in ours("--help").stdout.splitlines() if line.startswith("  ")]
        self.assertIn("thin_delta", tools)
        for tool in tools:
            for flag in ("--help", "-h"):
                self.assertIn(f"Usage: {tool} ", ours(tool, flag).stdout)
            self.assertRegex(ours(tool, "-V").stdout, r"^\d+\.\d+\.\d+\n$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
