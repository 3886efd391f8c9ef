#include "backup/leftover_chunks.h"

#include <algorithm>
#include <cstring>
#include <ranges>
#include <set>

#include <spdlog/spdlog.h>

#include "backup/removal_plan.h"
#include "base/error.h"

namespace convoy {
namespace {

// Older ones will hardly have what the newest don't.
constexpr std::size_t kMaxInterrupted = 8;

std::uint64_t key_of(const Digest& digest) {
  std::uint64_t key = 0;
  std::memcpy(&key, digest.data(), sizeof key);
  return key;
}

PackUses data_packs_of(const Store& store, const Uuid& lineage, const Uuid& backup) {
  PackUses packs;
  store.objects().list(packs_prefix(lineage, backup), [&](const ObjectInfo& info) {
    const auto object = parse_pack_key(info.key);
    if (object && object->pack.kind == PackKind::kData)
      packs[object->pack] = {.size = info.size, .references = 0};
  });
  return packs;
}

}  // namespace

std::vector<Uuid> interrupted_backups(const Store& store, const Uuid& lineage,
                                      const LeaseList& leases, const PackUses& known) {
  std::set<Uuid> begun;
  for (const auto* const list : {&leases.leases, &leases.revocations})
    for (const auto& [backup, time] : *list) begun.insert(backup);
  if (begun.empty()) return {};
  // Of most that were revoked, nothing is left, or there never was anything.
  std::set<Uuid> with_packs;
  for (const std::string& name :
       store.objects().list_directories(prefix_of(lineage, LineagePart::kPacks)))
    if (const auto backup = Uuid::parse(name)) with_packs.insert(*backup);
  std::erase_if(begun, [&](const Uuid& backup) { return !with_packs.contains(backup); });
  std::vector<Uuid> interrupted;
  for (const Uuid& backup : std::views::reverse(begun)) {
    if (interrupted.size() == kMaxInterrupted) break;
    if (store.objects().head(backup_key(lineage, backup))) continue;
    const PackUses packs = data_packs_of(store, lineage, backup);
    if (!std::ranges::all_of(packs, [&](const auto& pack) { return known.contains(pack.first); }))
      interrupted.push_back(backup);
  }
  return interrupted;
}

PackUses usable_packs(const Store& store, const Uuid& lineage, const std::vector<Uuid>& backups) {
  PackUses packs;
  const std::vector<RemovalPlan> plans = list_plans(store, lineage);
  for (const Uuid& backup : backups) packs.merge(data_packs_of(store, lineage, backup));
  std::erase_if(packs, [&](const auto& entry) {
    return std::ranges::any_of(plans, [&](const auto& plan) { return plan.names(entry.first); });
  });
  return packs;
}

LeftoverChunks::LeftoverChunks(ObjectStore& objects, const Uuid& lineage, const PackUses& packs,
                               std::size_t window)
    : footers_(objects, lineage, packs), max_slots_(window) {
  for (const auto& [pack, use] : packs) {  // by backup, and then by number
    if (windows_.empty() || windows_.back().packs.back().backup != pack.backup)
      windows_.emplace_back();
    windows_.back().packs.push_back(pack);
  }
  if (!windows_.empty()) max_slots_ /= windows_.size();
  for (Window& next : windows_) fill(next);
}

std::optional<Reference> LeftoverChunks::find(const Digest& digest) {
  const std::lock_guard lock(mutex_);
  for (Window& window : windows_) {
    if (const auto found = find_in(window, digest)) return found;
  }
  return std::nullopt;
}

std::optional<Reference> LeftoverChunks::find_in(Window& window, const Digest& digest) {
  const auto found = window.place_of.find(key_of(digest));
  if (found == window.place_of.end()) {
    // Most likely, this part of the volume has changed since: it goes by all the same.
    ++window.position;
    advance(window);
    return std::nullopt;
  }
  const auto [index, slot] = found->second;
  const Loaded& loaded = window.loaded[index - window.begin];
  const Reference reference{.pack = loaded.pack, .slot = slot, .digest = digest};
  if (loaded.footer->slots[slot].digest != digest) return std::nullopt;
  window.position = loaded.first + slot;
  advance(window);
  return reference;
}

// Keeps the position in the first half of the window, as long as there are more packs.
void LeftoverChunks::advance(Window& window) {
  const auto middle = [&] {
    const std::size_t first = window.loaded.front().first;
    return first + (window.end - first) / 2;
  };
  while (window.begin + window.loaded.size() < window.packs.size() && window.position > middle()) {
    drop_first(window);
    fill(window);
  }
}

// Two packs at least, and then as many as there is room for.
void LeftoverChunks::fill(Window& window) {
  while (window.begin + window.loaded.size() < window.packs.size() &&
         (window.loaded.size() < 2 || window.end - window.loaded.front().first < max_slots_))
    load_next(window);
}

void LeftoverChunks::load_next(Window& window) {
  const std::size_t index = window.begin + window.loaded.size();
  const PackName& pack = window.packs[index];
  Loaded loaded{.footer = nullptr, .pack = pack, .first = window.end};
  try {
    loaded.footer = footers_.footer_of(pack);
    window.end += loaded.footer->slots.size();
    for (std::uint32_t slot = 0; slot < loaded.footer->slots.size(); ++slot) {
      const PackSlot& entry = loaded.footer->slots[slot];
      if (entry.length > 0) window.place_of[key_of(entry.digest)] = {.pack = index, .slot = slot};
    }
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    spdlog::warn("a pack of an interrupted backup is not used: {}: {}", to_string(pack),
                 error.message());
  }
  window.loaded.push_back(std::move(loaded));
}

void LeftoverChunks::drop_first(Window& window) {
  const Loaded& first = window.loaded.front();
  if (first.footer) {
    for (const PackSlot& entry : first.footer->slots) {
      const auto found = window.place_of.find(key_of(entry.digest));
      if (found != window.place_of.end() && found->second.pack == window.begin)
        window.place_of.erase(found);
    }
  }
  window.loaded.pop_front();
  ++window.begin;
}

}  // namespace convoy
