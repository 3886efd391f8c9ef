#!/usr/bin/python3
"""A second reader of backups, written from docs/backup-format.md alone: if it can't restore, that page is wrong.

  second_reader.py STORE LINEAGE BACKUP OUTPUT    restores into the file OUTPUT; STORE is the destination's directory

It needs the zstd program besides Python.
"""

import hashlib
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

FANOUT = 128
HEADER, SLOT, TRAILER = 40, 40, 56


def require(condition: bool, what: str) -> None:
    if not condition:
        raise SystemExit(f"damaged: {what}")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def decompress(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-d", "-q", "-c"], input=data, capture_output=True, check=True).stdout


def decode_frame(frame: bytes) -> bytes:
    encoding, cipher, zero, plain_length, stored_length = struct.unpack_from("<BBHII", frame)
    require(cipher == 0 and zero == 0 and not any(frame[12:HEADER]), "a frame's header")
    stored = frame[HEADER:]
    require(len(stored) == stored_length, "a frame's stored length")
    require(encoding in (0, 1), "a frame's encoding")
    plain = stored
    if encoding == 1:
        plain = decompress(stored)
    require(len(plain) == plain_length, "a frame's plain length")
    return plain


class Pack:
    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        size = len(self.content)
        trailer = self.content[-TRAILER:]
        offset, length, zero = struct.unpack_from("<IIQ", trailer)
        require(trailer[48:] == b"convoypk" and zero == 0, f"{path}: trailer")
        require(offset + length + TRAILER == size, f"{path}: footer")
        require(sha256(self.content[offset : size - TRAILER + 16]) == trailer[16:48], f"{path}: checksum")
        footer = decode_frame(self.content[offset : offset + length])
        self.slots = [footer[at : at + SLOT] for at in range(0, len(footer), SLOT)]

    def read(self, slot: int, digest: bytes) -> bytes:
        offset, length = struct.unpack_from("<II", self.slots[slot])
        require(length > 0 and self.slots[slot][8:] == digest, f"slot {slot}")
        plain = decode_frame(self.content[offset : offset + length])
        require(sha256(plain) == digest, f"slot {slot}: digest")
        return plain


class Backup:
    def __init__(self, store: Path, lineage: str, backup: str) -> None:
        about = json.loads((store / "convoy/store.json").read_text())
        require((about["version"], about["digest"], about["encryption"]) == (1, "sha256", "none"), "store.json")
        self.directory = store / "convoy/volumes" / lineage
        record = self.directory / "backups" / f"{backup}.json.zst"
        revocation = self.directory / "leases" / f"{backup}.revoked"
        void = revocation.exists() and revocation.stat().st_ctime_ns < record.stat().st_ctime_ns
        require(record.exists() and not void, "there is no such backup")
        text = decompress(record.read_bytes())
        require(text[-80:] == b',"checksum":"' + sha256(text[:-80]).hex().encode() + b'"}\n', "checksum of the backup")
        self.record = json.loads(text)
        require(self.record["version"] == 1, "version of the backup")
        self.size, self.chunk_size = self.record["volume"]["size"], self.record["chunk_size"]
        self.sizes = dict(self.listed_packs())
        self.packs: dict[str, Pack] = {}

    def listed_packs(self) -> Iterator[tuple[str, int]]:
        for backup, kinds in self.record["packs"].items():
            for kind, columns in kinds.items():
                numbers = [number for first, last in columns["numbers"] for number in range(first, last + 1)]
                require(len(numbers) == len(columns["sizes"]) == len(columns["references"]), "columns of packs")
                for number, size in zip(numbers, columns["sizes"], strict=True):
                    yield f"{backup}/{number}.{kind}", size

    def pack(self, name: str) -> Pack:
        if name not in self.packs:
            path = self.directory / "packs" / name
            if path.exists():
                require(path.stat().st_size == self.sizes[name], f"{path}: size")
            else:
                require(name in self.sizes, f"{name} is not listed")
                rewritten = sorted((self.directory / "rewritten" / Path(name).parent).glob(f"{Path(name).name}.*"))
                require(bool(rewritten), f"{name} is missing")
                path = rewritten[-1]
            self.packs[name] = Pack(path)
        return self.packs[name]

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """The number and the bytes of each chunk that is not zero."""
        root = self.record["tree"]["root"]
        if root:
            yield from self.under(root["pack"], root["slot"], bytes.fromhex(root["digest"]), self.record["tree"]["height"] - 1, 0)

    def under(self, pack: str, slot: int, digest: bytes, level: int, first: int) -> Iterator[tuple[int, bytes]]:
        node = self.pack(pack).read(slot, digest)
        require(node[0] == level and node[3] == 0, "a node's begin")
        kind = "data" if level == 0 else "tree"
        packs = []
        for at in range(4, 4 + 20 * node[1], 20):
            packs.append(f"{UUID(bytes=node[at : at + 16])}/{int.from_bytes(node[at + 16 : at + 20], 'little')}.{kind}")
        entries = 4 + 20 * node[1]
        require(len(node) == entries + 38 * node[2], "a node's length")
        for at in range(entries, len(node), 38):
            place, index, child_slot = struct.unpack_from("<BBI", node, at)
            child_digest = node[at + 6 : at + 38]
            child = first + place * FANOUT**level
            if level == 0:
                yield child, self.pack(packs[index]).read(child_slot, child_digest)
            else:
                yield from self.under(packs[index], child_slot, child_digest, level - 1, child)


def restore(store: Path, lineage: str, backup: str, output: Path) -> None:
    source = Backup(store, lineage, backup)
    with output.open("wb") as file:
        file.truncate(source.size)
        for number, plain in source.chunks():
            begin = number * source.chunk_size
            require(len(plain) == min(source.chunk_size, source.size - begin), f"length of chunk {number}")
            file.seek(begin)
            file.write(plain)


if __name__ == "__main__":
    restore(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
