// How many references of a tree in the making lead into each pack. It starts as the parent's and
// follows every entry that is set or dropped, so that the packs that a backup no longer refers to
// are known without a walk through the whole tree.
#pragma once

#include <cstdint>

#include "backup/backup_record.h"
#include "backup/layout.h"

namespace convoy {

class PackLedger {
 public:
  explicit PackLedger(PackUses uses) : uses_(std::move(uses)) {}

  void retain(const PackName& pack);
  // Throws kCorrupt if there is no such reference: the parent's JSON contradicts its tree.
  void release(const PackName& pack);
  // Throws kInternal for a pack that nothing refers to.
  void set_size(const PackName& pack, std::uint64_t size);
  // For those packs of `others` that are referred to.
  void set_sizes_of(const PackUses& others);

  // The packs that are referred to.
  const PackUses& uses() const { return uses_; }

 private:
  PackUses uses_;
};

}  // namespace convoy
