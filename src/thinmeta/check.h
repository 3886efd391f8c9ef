// Whether a pool's metadata are sound: everything in them is read, and counted.
#pragma once

#include <functional>
#include <string>

#include "thinmeta/superblock.h"

namespace convoy {

// How far a check goes; each includes those before it.
enum class CheckDepth {
  kSuperblock,  // what Metadata's constructor has read already
  kDevices,     // the tree of devices, and where each has its mappings
  kMappings,    // all mappings
  kSpaceMaps,   // whether both space maps count just the references that there are. If there is
                // damage before, that would be told again as counts, so it is left out then.
};

struct Finding {
  enum class Kind {
    kDamage,  // something is lost, or will be
    kLeak,    // a block that nobody uses, or that fewer use than the space map says: space is lost
  };
  Kind kind;
  std::string sentence;  // names tree, block and keys
};

// Told what goes on, in this order.
struct CheckObserver {
  std::function<void(const char* part)> begin;  // "superblock", "devices tree", ...
  std::function<void(const Finding&)> found;
};

namespace thinmeta {

// Metadata::check, given the superblock.
void check_metadata(BlockReader& reader, const Superblock& superblock, CheckDepth depth,
                    const CheckObserver& observer);

}  // namespace thinmeta
}  // namespace convoy
