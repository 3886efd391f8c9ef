#include "thinmeta/torn_hold.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>
#include <vector>

#include "base/error.h"
#include "sys/aligned_buffer.h"
#include "sys/block_device.h"
#include "sys/file.h"
#include "thinmeta/block_reader.h"
#include "thinmeta/crc32c.h"
#include "thinmeta/disk_format.h"
#include "thinmeta/space_map.h"
#include "thinmeta/superblock.h"

namespace convoy {

using namespace thinmeta;

namespace {

bool is_superblock(BlockReader& reader, std::uint64_t block) {
  try {
    return struct_at<DiskSuperblock>(reader.read(block, BlockKind::kSuperblock)->bytes(), 0)
               .magic == kSuperblockMagic;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    return false;
  }
}

TornHold find(BlockReader& reader, const Superblock& superblock, std::uint64_t last) {
  const auto is_counted_snapshot = [&](std::uint64_t block) {
    return block < reader.end() && is_superblock(reader, block) &&
           metadata_references(reader, superblock.metadata_space_map, block) > 0;
  };
  // What is half taken may have got another use since, if somebody has made the pool active.
  if (superblock.held_root != 0)
    return is_counted_snapshot(superblock.held_root) ? TornHold::kNone : TornHold::kHalfTaken;
  // A block that is in use was written before it was counted, so it is no older content.
  return last != 0 && is_counted_snapshot(last) ? TornHold::kHalfReleased : TornHold::kNone;
}

std::vector<std::byte> superblock_of(BlockReader& reader) {
  const Block block = reader.read(kSuperblockNumber, BlockKind::kSuperblock);
  return {block->bytes().begin(), block->bytes().end()};
}

void write_held_root(const std::filesystem::path& metadata_device, std::vector<std::byte> content,
                     std::uint64_t held_root) {
  auto disk = struct_at<DiskSuperblock>(content, 0);
  disk.held_root = held_root;
  std::memcpy(content.data(), &disk, sizeof disk);
  disk.header.checksum =
      crc32c(std::span<const std::byte>(content).subspan(sizeof disk.header.checksum)) ^
      kSuperblockChecksumXor;
  std::memcpy(content.data(), &disk, sizeof disk);
  AlignedBuffer block(kBlockSize);
  std::ranges::copy(content, block.bytes().begin());
  const BlockDevice device = BlockDevice::open(metadata_device, Access::kReadWrite);
  write_all_at(device.fd(), block.bytes(), kSuperblockNumber);
  fsync_file(device.fd(), metadata_device);
}

}  // namespace

TornHold find_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last) {
  // Commits write into blocks that were free, so two of them pass before what a superblock leads to
  // is written over.
  constexpr int kTries = 50;
  for (int tries = 1; tries <= kTries; ++tries) {
    BlockReader reader(BlockDevice::open(metadata_device, Access::kReadOnly));
    const std::vector<std::byte> before = superblock_of(reader);
    try {
      const TornHold found = find(reader, read_superblock(reader), last);
      if (superblock_of(reader) == before) return found;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt || superblock_of(reader) == before) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  throw Error(ErrorKind::kUnavailable,
              "the pool's metadata on {} change too quickly to be looked at: try again later",
              metadata_device.native());
}

TornHold mend_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last) {
  if (find_torn_hold(metadata_device, last) == TornHold::kNone) return TornHold::kNone;
  const UniqueFd claim = claim_device(metadata_device);
  // Again, now that nobody can make the pool active any more.
  BlockReader reader(BlockDevice::open(metadata_device, Access::kReadOnly));
  const TornHold found = find(reader, read_superblock(reader), last);
  if (found != TornHold::kNone) {
    write_held_root(metadata_device, superblock_of(reader),
                    found == TornHold::kHalfReleased ? last : 0);
  }
  return found;
}

}  // namespace convoy
