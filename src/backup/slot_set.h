// Sets of slots of packs, a bit for each: 8 MiB for a TiB of chunks of 16 KiB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "backup/layout.h"
#include "backup/tree_node.h"

namespace convoy {

// Not thread-safe.
class SlotSet {
 public:
  void insert(const PackName& pack, std::uint32_t slot) {
    std::vector<bool>& slots = slots_of_[pack];
    if (slots.size() <= slot) slots.resize(slot + std::size_t{1});
    slots[slot] = true;
  }
  void insert(const Reference& reference) { insert(reference.pack, reference.slot); }

  bool contains(const Reference& reference) const {
    const auto found = slots_of_.find(reference.pack);
    return found != slots_of_.end() && reference.slot < found->second.size() &&
           found->second[reference.slot];
  }

  bool empty() const { return slots_of_.empty(); }

  // Leaves out the packs for which `unwanted` is true.
  void erase_packs(const std::function<bool(const PackName&)>& unwanted) {
    std::erase_if(slots_of_, [&](const auto& entry) { return unwanted(entry.first); });
  }

  // By pack and slot, ascending.
  void for_each(const std::function<void(const PackName&, std::uint32_t slot)>& visit) const {
    for (const auto& [pack, slots] : slots_of_) {
      for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        if (slots[slot]) visit(pack, static_cast<std::uint32_t>(slot));
      }
    }
  }

 private:
  std::map<PackName, std::vector<bool>> slots_of_;  // none without any
};

}  // namespace convoy
