// What verifications found broken in a lineage: the objects in its damaged/. Backups don't build on
// what is named there.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <utility>

#include "backup/layout.h"
#include "backup/store.h"
#include "backup/tree_node.h"
#include "base/uuid.h"

namespace convoy {

// A slot of a pack.
using PackPlace = std::pair<PackName, std::uint32_t>;
inline PackPlace place_of(const Reference& reference) {
  return {reference.pack, reference.slot};
}

using DamagedPlaces = std::set<PackPlace>;

// Adds a note to those that are there. Throws what ObjectStore::put throws.
void put_damage_note(const Store& store, const Uuid& lineage, const DamagedPlaces& places);

// All that the notes of a lineage name. A note that is damaged itself names nothing. Throws
// kUnsupported for one of another version.
DamagedPlaces list_damage(const Store& store, const Uuid& lineage);

// Removes the notes that name only packs for which `needed` is false.
void remove_damage_notes(const Store& store, const Uuid& lineage,
                         const std::function<bool(const PackName&)>& needed);

}  // namespace convoy
