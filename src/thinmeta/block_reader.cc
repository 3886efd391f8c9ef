#include "thinmeta/block_reader.h"

#include <utility>

#include "base/error.h"
#include "sys/file.h"
#include "thinmeta/crc32c.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {
namespace {

constexpr std::uint32_t checksum_xor(BlockKind kind) {
  return kind == BlockKind::kSuperblock ? kSuperblockChecksumXor : kNodeChecksumXor;
}

}  // namespace

BlockReader::BlockReader(BlockDevice device)
    : device_(std::move(device)), end_(device_.size() / kBlockSize) {}

AlignedBuffer BlockReader::read(std::uint64_t number, BlockKind kind) {
  if (number >= end_) {
    throw Error(ErrorKind::kCorrupt, "block {} is beyond the end, there are {} blocks", number,
                end_);
  }
  AlignedBuffer block(kBlockSize);
  read_exactly_at(device_.fd(), block.bytes(), number * kBlockSize);
  ++blocks_read_;

  const auto header = struct_at<DiskBlockHeader>(block.bytes(), 0);
  const std::uint32_t checksum =
      crc32c(block.bytes().subspan(sizeof header.checksum)) ^ checksum_xor(kind);
  if (header.checksum != checksum) {
    throw Error(ErrorKind::kCorrupt, "its checksum is {:#010x} and should be {:#010x}",
                header.checksum.get(), checksum);
  }
  if (header.own_number != number) {
    throw Error(ErrorKind::kCorrupt, "it says that it is block {}", header.own_number.get());
  }
  return block;
}

void BlockReader::limit_to(std::uint64_t end) {
  if (end > end_) {
    throw Error(ErrorKind::kCorrupt, "the device has {} blocks of 4 KiB, but its metadata need {}",
                end_, end);
  }
  end_ = end;
}

}  // namespace convoy::thinmeta
