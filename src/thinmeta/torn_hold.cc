#include "thinmeta/torn_hold.h"

#include <cstring>

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
  const auto is_counted = [&](std::uint64_t block) {
    return metadata_references(reader, superblock.metadata_space_map, block) > 0;
  };
  if (superblock.held_root != 0)
    return is_counted(superblock.held_root) ? TornHold::kNone : TornHold::kHalfTaken;
  // A block that is in use was written before it was counted, so it is no older content.
  if (last == 0 || last >= reader.end() || !is_superblock(reader, last)) return TornHold::kNone;
  return is_counted(last) ? TornHold::kHalfReleased : TornHold::kNone;
}

void write_held_root(const std::filesystem::path& metadata_device, std::uint64_t held_root) {
  const BlockDevice device = BlockDevice::open(metadata_device, Access::kReadWrite);
  AlignedBuffer block(kBlockSize);
  read_exactly_at(device.fd(), block.bytes(), kSuperblockNumber);
  auto disk = struct_at<DiskSuperblock>(block.bytes(), 0);
  disk.held_root = held_root;
  std::memcpy(block.bytes().data(), &disk, sizeof disk);
  disk.header.checksum =
      crc32c(block.bytes().subspan(sizeof disk.header.checksum)) ^ kSuperblockChecksumXor;
  std::memcpy(block.bytes().data(), &disk, sizeof disk);
  write_all_at(device.fd(), block.bytes(), kSuperblockNumber);
  fsync_file(device.fd(), metadata_device);
}

}  // namespace

TornHold find_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last) {
  // A commit writes into blocks that were free, so two of them pass before what a superblock leads
  // to is written over: they come a second apart, and to read it takes a moment.
  constexpr int kTries = 5;
  for (int tries = 1;; ++tries) {
    BlockReader reader(BlockDevice::open(metadata_device, Access::kReadOnly));
    try {
      const Superblock superblock = read_superblock(reader);
      const TornHold found = find(reader, superblock, last);
      // Each commit puts the index of the bitmaps somewhere else.
      const bool has_changed = read_superblock(reader).metadata_space_map.bitmap_root !=
                               superblock.metadata_space_map.bitmap_root;
      if (!has_changed || tries == kTries) return found;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt || tries == kTries) throw;
    }
  }
}

TornHold mend_torn_hold(const std::filesystem::path& metadata_device, std::uint64_t last) {
  const TornHold found = find_torn_hold(metadata_device, last);
  if (found == TornHold::kNone) return found;
  if (is_held(metadata_device))
    throw Error(ErrorKind::kBusy, "{} is in use", metadata_device.native());
  write_held_root(metadata_device, found == TornHold::kHalfReleased ? last : 0);
  return found;
}

}  // namespace convoy
