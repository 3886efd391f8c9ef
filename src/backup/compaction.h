// When a backup tidies up what many backups before it have left, so that reading the newest one
// asks the store for little more than if it were the first.
#pragma once

#include <set>

#include "backup/backup_record.h"
#include "backup/layout.h"

namespace convoy {

// Whether a tree that stands in these packs should be written anew.
bool is_tree_scattered(const PackUses& packs);

// The packs whose chunks the next backup of a tree into these packs, in chunks of this size, should
// store again, together: those that hold little, once there are many of them.
std::set<PackName> scattered_packs(const PackUses& packs, std::uint32_t chunk_size);

}  // namespace convoy
