#include "thinmeta/size_estimate.h"

#include "thinmeta/disk_format.h"

namespace convoy {

std::uint64_t estimate_metadata_blocks(Sectors pool, Sectors pool_block, std::uint64_t thins) {
  constexpr std::uint64_t kMappingsOfALeaf =
      thinmeta::max_entries_of(sizeof(thinmeta::DiskMapping));
  return 1 + 2 * pool.count / pool_block.count / kMappingsOfALeaf + thins;
}

}  // namespace convoy
