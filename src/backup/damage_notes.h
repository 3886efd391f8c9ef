// What verifications found broken in a lineage: the objects in its damaged/. Backups don't build on
// what is named there.
#pragma once

#include <functional>

#include "backup/layout.h"
#include "backup/slot_set.h"
#include "backup/store.h"
#include "base/uuid.h"

namespace convoy {

// Adds a note, or several if it is much, of what the notes that are there don't name; if that is
// nothing, does nothing. Throws what ObjectStore::put throws, and as list_damage.
void put_damage_note(const Store& store, const Uuid& lineage, const SlotSet& broken);

// All that the notes of a lineage name. A note that is damaged itself names nothing. Throws
// kUnsupported for one of another version.
SlotSet list_damage(const Store& store, const Uuid& lineage);

// Removes the notes that name only packs for which `needed` is false.
void remove_damage_notes(const Store& store, const Uuid& lineage,
                         const std::function<bool(const PackName&)>& needed);

}  // namespace convoy
