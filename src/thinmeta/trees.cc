#include "thinmeta/trees.h"

#include <limits>

#include <fmt/format.h>

#include "base/limits.h"
#include "thinmeta/disk_format.h"

namespace convoy::thinmeta {
namespace {

constexpr std::uint64_t kThinIdEnd = std::uint64_t{kMaxThinId} + 1;

}  // namespace

Tree details_tree(const Superblock& superblock) {
  return {"details of thin devices", superblock.details_root, sizeof(DiskDeviceDetails),
          kThinIdEnd};
}

Tree roots_tree(const Superblock& superblock, std::uint64_t metadata_end) {
  return {"roots of the mappings", superblock.mapping_root, sizeof(Le64), kThinIdEnd, metadata_end};
}

Tree mapping_tree(const Superblock& superblock, std::uint32_t thin_id, std::uint64_t root) {
  Tree tree = {fmt::format("mappings of thin device {}", thin_id), root, sizeof(DiskMapping)};
  // No block of a device may end beyond what 64 bits of bytes can say.
  tree.key_end = std::numeric_limits<std::uint64_t>::max() / superblock.data_block_size.bytes();
  // With the most data blocks that the format can have, every value is one.
  if (superblock.data_blocks < kMaxDataBlocks)
    tree.value_end = superblock.data_blocks << kMappingTimeBits;
  return tree;
}

}  // namespace convoy::thinmeta
