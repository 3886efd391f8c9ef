// What differs between two mapping trees, found without reading what they share.
#pragma once

#include <functional>
#include <optional>

#include "base/units.h"
#include "thinmeta/node.h"

namespace convoy {

enum class Change {
  kAdded,      // mapped in the second device only
  kRemoved,    // mapped in the first device only
  kDifferent,  // mapped in both, to different data blocks
};

// [begin, end) of a thin device's address space, in pool blocks.
struct DeltaRange {
  PoolBlocks begin;
  PoolBlocks end;
  Change change = Change::kAdded;

  bool operator==(const DeltaRange&) const = default;
};

// One block of the address space, and the data blocks it is mapped to; at least one is set.
struct BlockPair {
  PoolBlocks block;
  std::optional<std::uint64_t> first;
  std::optional<std::uint64_t> second;
  bool operator==(const BlockPair&) const = default;
};

// What becomes of blocks that both devices map to the same data block.
enum class Same { kSkipped, kVisited };

namespace thinmeta {

// Metadata::compare, given the two devices' trees.
void walk_pairs(BlockReader& reader, const std::optional<Tree>& first, const Tree& second,
                Same same, const std::function<void(const BlockPair&)>& visit);

// Metadata::delta, given the two devices' trees.
void walk_delta(BlockReader& reader, const std::optional<Tree>& first, const Tree& second,
                const std::function<void(const DeltaRange&)>& visit);

}  // namespace thinmeta
}  // namespace convoy
