#include "thinmeta/superblock.h"

#include <fmt/format.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"
#include "thinmeta/disk_format.h"

namespace convoy {

using thinmeta::DiskSuperblock;

MetadataContent classify_metadata(const BlockDevice& device) {
  if (device.size() < thinmeta::kBlockSize) {
    throw Error(ErrorKind::kInvalidArgument, "{} bytes are too few for a thin pool's metadata",
                device.size());
  }
  AlignedBuffer block(thinmeta::kBlockSize);
  read_exactly_at(device.fd(), block.bytes(), 0);
  if (all_zero(block.bytes())) return MetadataContent::kZero;
  const auto disk = thinmeta::struct_at<DiskSuperblock>(block.bytes(), 0);
  return disk.magic == thinmeta::kSuperblockMagic ? MetadataContent::kThinMetadata
                                                  : MetadataContent::kForeign;
}

namespace thinmeta {
namespace {

DiskSuperblock read_disk_superblock(BlockReader& reader, std::uint64_t number) {
  const auto disk =
      struct_at<DiskSuperblock>(reader.read(number, BlockKind::kSuperblock)->bytes(), 0);
  if (disk.magic != kSuperblockMagic) {
    throw Error(ErrorKind::kCorrupt, "its magic number is {}", disk.magic.get());
  }
  if (disk.version < kOldestVersion || disk.version > kNewestVersion) {
    throw Error(ErrorKind::kUnsupported, "it is of version {}, we know {} to {}",
                disk.version.get(), kOldestVersion, kNewestVersion);
  }
  if (disk.incompat_flags != 0) {
    throw Error(ErrorKind::kUnsupported, "it has unknown features {:#x}",
                disk.incompat_flags.get());
  }
  const Sectors pool_block{disk.data_block_sectors};
  if (pool_block < kMinPoolBlock || pool_block > kMaxPoolBlock ||
      pool_block.count % kMinPoolBlock.count != 0) {
    throw Error(ErrorKind::kCorrupt, "its data block size is {} sectors", pool_block.count);
  }
  return disk;
}

SpaceMapRoot from_disk(const DiskSpaceMapRoot& disk) {
  return {disk.blocks, disk.bitmap_root, disk.reference_count_root};
}

void check_root(const BlockReader& reader, std::string_view what, std::uint64_t root) {
  if (root == kSuperblockNumber || root >= reader.end()) {
    throw Error(ErrorKind::kCorrupt, "the root of its {} is block {} of {}", what, root,
                reader.end());
  }
}

// What the copy that is a metadata snapshot has as well.
void take_trees(const BlockReader& reader, const DiskSuperblock& disk, Superblock& superblock) {
  superblock.flags = disk.header.flags;
  superblock.transaction_id = disk.transaction_id;
  superblock.time = disk.time;
  superblock.mapping_root = disk.mapping_root;
  superblock.details_root = disk.details_root;
  check_root(reader, "mappings", superblock.mapping_root);
  check_root(reader, "device details", superblock.details_root);
}

}  // namespace

Superblock read_superblock(BlockReader& reader) {
  return with_context("superblock of the thin pool", [&] {
    const DiskSuperblock disk = read_disk_superblock(reader, kSuperblockNumber);
    Superblock superblock;
    superblock.version = disk.version;
    superblock.data_block_size = {disk.data_block_sectors};
    superblock.metadata_blocks = disk.metadata_space_map.blocks;
    superblock.data_blocks = disk.data_space_map.blocks;
    superblock.held_root = disk.held_root;
    superblock.data_space_map = from_disk(disk.data_space_map);
    superblock.metadata_space_map = from_disk(disk.metadata_space_map);
    superblock.needs_check = (disk.header.flags & kNeedsCheck) != 0;
    reader.limit_to(superblock.metadata_blocks);
    if (superblock.data_blocks > kMaxDataBlocks) {
      throw Error(ErrorKind::kCorrupt, "it says that there are {} data blocks",
                  superblock.data_blocks);
    }
    take_trees(reader, disk, superblock);
    return superblock;
  });
}

Superblock read_held_superblock(BlockReader& reader, const Superblock& live) {
  if (live.held_root == 0) {
    throw Error(ErrorKind::kNotFound, "the thin pool holds no metadata snapshot");
  }
  return with_context(
      fmt::format("metadata snapshot of the thin pool, block {}", live.held_root), [&] {
        const DiskSuperblock disk = read_disk_superblock(reader, live.held_root);
        if (disk.data_block_sectors != live.data_block_size.count) {
          throw Error(ErrorKind::kCorrupt, "its data block size is {} sectors, the pool's is {}",
                      disk.data_block_sectors.get(), live.data_block_size.count);
        }
        Superblock superblock = live;
        take_trees(reader, disk, superblock);
        return superblock;
      });
}

}  // namespace thinmeta
}  // namespace convoy
