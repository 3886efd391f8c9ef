"""Blocks of a pool's metadata and their checksums: Linux, drivers/md/persistent-data and dm-thin-metadata.c."""

BLOCK = 4096
# By these a checksum tells what a block is.
SUPERBLOCK, NODE, BITMAP, INDEX = 160774, 121107, 240779, 160478


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    """As the kernel's persistent-data library uses it: not inverted at the end."""
    register = 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register


def seal(content: bytearray, number: int, kind: int) -> None:
    """Makes the checksum of a block right again."""
    begin = number * BLOCK
    checksum = crc32c(content[begin + 4 : begin + BLOCK]) ^ kind
    content[begin : begin + 4] = checksum.to_bytes(4, "little")
