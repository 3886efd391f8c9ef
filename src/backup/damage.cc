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
