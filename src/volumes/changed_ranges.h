// What may differ between two snapshots, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/units.h"
#include "thinmeta/delta.h"

namespace convoy {

struct ChangedRange {
  ByteRange range;
  Change change = Change::kAdded;

  bool operator==(const ChangedRange&) const = default;
};

// Collects ranges. When they become too many, those that lie closest become one, with what is
// between them: a backup then reads a little more than has changed, and stores no more.
class ChangedRanges {
 public:
  // More than `limit` ranges, at least 2, are never held.
  explicit ChangedRanges(std::size_t limit = kMaxChangedRanges) : limit_(limit) {}

  // The range begins where the one before ends, or later, and is not empty.
  void add(const ChangedRange& range);

  // Ascending. All that was added is covered; what became one is kDifferent.
  std::vector<ChangedRange> take() { return std::move(ranges_); }

 private:
  void join_closest();

  const std::size_t limit_;
  std::vector<ChangedRange> ranges_;
};

}  // namespace convoy
