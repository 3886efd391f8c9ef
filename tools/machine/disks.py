"""The machine's disks: sparse images in a directory."""

import fcntl
import os
import re
from pathlib import Path

from job import UNUSABLE, Disk, Failure

DEFAULT_SIZES = {"data": 20 << 30, "meta": 512 << 20}

# UML numbers its disks 0 to 7.
MAX_DISKS = 8

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECTOR = 512


def parse_size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([KMGT]?)", text)
    if not match:
        raise Failure(UNUSABLE, f"{text!r} is not a size such as 512M or 20G")
    return int(match[1]) * _UNITS[match[2]]


def parse_disk(text: str) -> tuple[str, int]:
    """Splits NAME=SIZE."""
    name, _, size = text.partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise Failure(UNUSABLE, f"{text!r} is not NAME=SIZE with a name of [a-z0-9_]")
    length = parse_size(size)
    if length == 0 or length % _SECTOR:
        raise Failure(UNUSABLE, f"the size of disk {name} is not a multiple of {_SECTOR} bytes")
    return name, length


def make_images(asked: dict[str, int], directory: Path) -> list[Disk]:
    """Opens or creates NAME.img for the default disks and those asked for.

    An image that exists keeps its content, and must have the size that was asked for, if any.
    """
    sizes = DEFAULT_SIZES | asked
    if len(sizes) > MAX_DISKS:
        raise Failure(UNUSABLE, f"{len(sizes)} disks are more than the {MAX_DISKS} possible")
    disks = [Disk(name, (directory / f"{name}.img").resolve()) for name in sizes]
    for disk in disks:
        if not disk.image.exists():
            with disk.image.open("wb") as image:
                image.truncate(sizes[disk.name])
        elif disk.name in asked and disk.image.stat().st_size != asked[disk.name]:
            raise Failure(UNUSABLE, f"{disk.image} exists and has another size")
    return disks


def lock_directory(directory: Path) -> int:
    """Keeps other runs from using the same images, until the returned descriptor is closed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Failure(UNUSABLE, f"another machine is using the disks in {directory}") from None
    return descriptor
