// Sets of packs as ranges of their numbers: all that a backup of many TiB wrote is two of them.
#pragma once

#include <cstdint>
#include <functional>
#include <iterator>
#include <map>

#include "backup/layout.h"

namespace convoy {

// Not thread-safe.
class PackSet {
 public:
  void insert(const PackName& pack) {
    if (contains(pack)) return;
    std::uint32_t last = pack.number;
    auto next = ranges_.upper_bound(pack);
    if (next != ranges_.end() && follows(next->first, pack, last)) {
      last = next->second;
      next = ranges_.erase(next);
    }
    if (next != ranges_.begin()) {
      const auto before = std::prev(next);
      if (follows(pack, before->first, before->second)) {
        before->second = last;
        return;
      }
    }
    ranges_.emplace_hint(next, pack, last);
  }

  // All from `first` to the one of the number `last`, which is not less. None of them may be in the
  // set: of what a text has, its parser sees to that.
  void insert_range(const PackName& first, std::uint32_t last) { ranges_.emplace(first, last); }

  bool contains(const PackName& pack) const {
    const auto next = ranges_.upper_bound(pack);
    if (next == ranges_.begin()) return false;
    const auto& [first, last] = *std::prev(next);
    return are_alike(first, pack) && pack.number <= last;
  }

  bool empty() const { return ranges_.empty(); }

  // The first pack of each range, and the number of its last one.
  const std::map<PackName, std::uint32_t>& ranges() const { return ranges_; }

  // In ascending order.
  void for_each(const std::function<void(const PackName&)>& visit) const {
    for (const auto& [first, last] : ranges_) {
      PackName pack = first;
      for (std::uint64_t number = first.number; number <= last; ++number) {
        pack.number = static_cast<std::uint32_t>(number);
        visit(pack);
      }
    }
  }

 private:
  static bool are_alike(const PackName& a, const PackName& b) {
    return a.kind == b.kind && a.backup == b.backup;
  }
  // Whether `pack` is the one after a range.
  static bool follows(const PackName& pack, const PackName& first, std::uint32_t last) {
    return are_alike(first, pack) && pack.number == std::uint64_t{last} + 1;
  }

  std::map<PackName, std::uint32_t> ranges_;
};

}  // namespace convoy
