// Makes half-dead packs smaller.
#pragma once

#include <cstdint>
#include <functional>

#include "backup/layout.h"
#include "backup/pack_footers.h"
#include "base/uuid.h"
#include "objectstore/object_store.h"

namespace convoy {

using IsLive = std::function<bool(std::uint32_t slot)>;

// The bytes of a pack's frames, and of those that are live.
struct LiveShare {
  std::uint64_t live = 0;
  std::uint64_t all = 0;
};
LiveShare live_share(const PackFooter& footer, const IsLive& is_live);

// Puts the pack anew, with the frames of its live slots only, under their old numbers. What it was
// stays: the caller removes it. Returns the new object's size. Frames are copied as they are, so
// what was damaged stays so. Throws kNotFound if the object is gone, kCorrupt if it is shorter than
// its footer says; else what the store throws.
std::uint64_t rewrite_pack(ObjectStore& objects, const Uuid& lineage, const PackName& pack,
                           const PackFooter& footer, const IsLive& is_live);

}  // namespace convoy
