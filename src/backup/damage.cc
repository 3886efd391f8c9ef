#include "backup/damage.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace convoy {
namespace {

// Makes `next` a part of the last of them, if it is its neighbour.
void append(std::vector<Damage>& damages, Damage next) {
  if (!damages.empty() && damages.back().range.end == next.range.begin &&
      damages.back().reference.pack == next.reference.pack) {
    damages.back().range.end = next.range.end;
  } else {
    damages.push_back(std::move(next));
  }
}

}  // namespace

void DamageList::add(Damage damage) {
  const std::lock_guard lock(mutex_);
  append(damages_, std::move(damage));
}

std::vector<Damage> DamageList::take() {
  const std::lock_guard lock(mutex_);
  std::ranges::sort(damages_, {}, [](const Damage& damage) { return damage.range.begin; });
  std::vector<Damage> merged;
  for (Damage& damage : damages_) append(merged, std::move(damage));
  damages_.clear();
  return merged;
}

void read_despite_damage(PackReader& packs, std::span<const PackReader::Item> items,
                         std::size_t max_length, const PackReader::Visit& visit,
                         const DamageSink& damaged) {
  try {
    return packs.read(items, max_length, visit);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt || !damaged) throw;
  }
  // Which of them? One by one; what was visited is visited again.
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      packs.read(items.subspan(i, 1), max_length,
                 [&](std::size_t, std::span<const std::byte> plain) { visit(i, plain); });
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt) throw;
      damaged(
          {.range = items[i].range, .reference = items[i].reference, .reason = error.message()});
    }
  }
}

}  // namespace convoy
