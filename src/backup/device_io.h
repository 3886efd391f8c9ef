// Reading and writing a volume's device by a descriptor that may be O_DIRECT, whose rules on
// alignment end here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/aligned_buffer.h"

namespace convoy {

// The size of a block device or regular file in bytes.
std::uint64_t device_size(int fd);

// Reads `length` bytes from `offset` into the begin of `buffer`, which must have room for `length`
// rounded up to kDirectAlignment. `offset` is a multiple of kDirectAlignment. Throws kIo, also if
// the device ends before.
void read_device(int fd, AlignedBuffer& buffer, std::uint64_t offset, std::size_t length);

// Writes `data` at `offset`. The memory and `offset` are aligned to kDirectAlignment; the length
// need not be, as that of a volume's last chunk. Throws kNoSpace or kIo.
void write_device(int fd, std::span<const std::byte> data, std::uint64_t offset);

// Takes what a thin device or regular file has in this range away: it reads as zeros then. Of a
// thin device only whole pool blocks; the range must be made of such. Throws kIo.
// (ioctl BLKDISCARD, fallocate(2))
void discard_device(int fd, std::uint64_t offset, std::uint64_t length);

}  // namespace convoy
