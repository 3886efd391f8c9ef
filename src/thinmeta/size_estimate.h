// How large a pool's metadata can become.
#pragma once

#include <cstdint>

#include "base/units.h"

namespace convoy {

// How many metadata blocks of 4 KiB to plan for a pool of this size, fully mapped, with `thins`
// volumes and snapshots in all: the superblock, a leaf for each 252 blocks of the pool, twice as
// many since nodes are half full at worst, and a node for each thin device. The estimate of
// thin_metadata_size(8). What snapshots change costs more than that: their nodes are copied.
// `pool_block` must not be 0.
std::uint64_t estimate_metadata_blocks(Sectors pool, Sectors pool_block, std::uint64_t thins);

}  // namespace convoy
