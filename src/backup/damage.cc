#include "backup/damage.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/error.h"

namespace convoy {
void DamageList::add(Damage damage) {
  const std::lock_guard lock(mutex_);
  const ByteRange range = damage.range;
  const auto is_of_its_pack = [pack = damage.reference.pack](const auto& entry) {
    return entry.second.reference.pack == pack;
  };
  const auto next = damages_.lower_bound(range.begin);
  auto joined = damages_.end();
  if (next != damages_.begin() && is_of_its_pack(*std::prev(next)) &&
      std::prev(next)->second.range.end >= range.begin) {
    joined = std::prev(next);
    joined->second.range.end = std::max(joined->second.range.end, range.end);
  } else {
    joined = damages_.emplace_hint(next, range.begin, std::move(damage));
  }
  if (next != damages_.end() && is_of_its_pack(*next) && joined->second.range.end >= next->first) {
    joined->second.range.end = std::max(joined->second.range.end, next->second.range.end);
    damages_.erase(next);
  }
}

std::vector<Damage> DamageList::take() {
  const std::lock_guard lock(mutex_);
  std::vector<Damage> damages;
  for (auto& [begin, damage] : damages_) damages.push_back(std::move(damage));
  damages_.clear();
  return damages;
}

void read_despite_damage(PackReader& packs, std::span<const PackReader::Item> items,
                         std::size_t max_length, const PackReader::Visit& visit,
                         const DamageSink& damaged) {
  try {
    return packs.read(items, max_length, visit);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt || !damaged) throw;
    if (items.size() == 1) {
      damaged(
          {.range = items[0].range, .reference = items[0].reference, .reason = error.message()});
      return;
    }
  }
  // Which of them? A few broken ones are soon found; what was visited is visited again.
  const std::size_t half = items.size() / 2;
  read_despite_damage(packs, items.first(half), max_length, visit, damaged);
  read_despite_damage(
      packs, items.subspan(half), max_length,
      [&](std::size_t index, std::span<const std::byte> plain) { visit(half + index, plain); },
      damaged);
}

}  // namespace convoy
