#include "thinmeta/half_taken_hold.h"

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

bool has_half_taken_hold(const std::filesystem::path& metadata_device) {
  // A commit writes into blocks that were free, so two of them pass before what a superblock leads
  // to is written over: they come a second apart, and to read it takes a moment.
  constexpr int kTries = 5;
  for (int tries = 1;; ++tries) {
    BlockReader reader(BlockDevice::open(metadata_device, Access::kReadOnly));
    try {
      const Superblock superblock = read_superblock(reader);
      const SpaceMapRoot& map = superblock.metadata_space_map;
      const bool found =
          superblock.held_root != 0 && metadata_references(reader, map, superblock.held_root) == 0;
      // Each commit puts the index of the bitmaps somewhere else.
      const bool has_changed =
          read_superblock(reader).metadata_space_map.bitmap_root != map.bitmap_root;
      if (!has_changed || tries == kTries) return found;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt || tries == kTries) throw;
    }
  }
}

bool drop_half_taken_hold(const std::filesystem::path& metadata_device) {
  if (!has_half_taken_hold(metadata_device)) return false;
  if (is_held(metadata_device))
    throw Error(ErrorKind::kBusy, "{} is in use", metadata_device.native());
  const BlockDevice device = BlockDevice::open(metadata_device, Access::kReadWrite);
  AlignedBuffer block(kBlockSize);
  read_exactly_at(device.fd(), block.bytes(), kSuperblockNumber);
  auto disk = struct_at<DiskSuperblock>(block.bytes(), 0);
  disk.held_root = 0;
  std::memcpy(block.bytes().data(), &disk, sizeof disk);
  disk.header.checksum =
      crc32c(block.bytes().subspan(sizeof disk.header.checksum)) ^ kSuperblockChecksumXor;
  std::memcpy(block.bytes().data(), &disk, sizeof disk);
  write_all_at(device.fd(), block.bytes(), kSuperblockNumber);
  fsync_file(device.fd(), metadata_device);
  return true;
}

}  // namespace convoy
