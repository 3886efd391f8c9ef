#include "backup/damage_notes.h"

#include <functional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Each may be of another pack, which takes a field: a tenth of what readers take.
constexpr std::size_t kMaxSlotsInNote = kMaxStoreJsonFields / 10;

SlotSet parse(const nlohmann::json& json) {
  const JsonFields fields(json);
  fields.check_version();
  const nlohmann::json& packs = fields.field("slots");
  if (!packs.is_object()) fields.refuse("slots", "is no object");
  SlotSet broken;
  for (const auto& [name, slots] : packs.items()) {
    const auto pack = parse_pack_name(name);
    if (!pack || !slots.is_array()) fields.refuse("slots", "is not made of packs and their slots");
    for (const nlohmann::json& slot : slots) {
      if (!slot.is_number_unsigned() || slot.get<std::uint64_t>() >= kMaxPackSlots)
        fields.refuse("slots", "has an element that is no slot");
      broken.insert(*pack, slot.get<std::uint32_t>());
    }
  }
  return broken;
}

void visit_notes(const Store& store, const Uuid& lineage,
                 const std::function<void(const std::string& key, const SlotSet& broken)>& visit) {
  store.objects().list(prefix_of(lineage, LineagePart::kDamaged), [&](const ObjectInfo& info) {
    if (!parse_json_key(info.key)) return;
    SlotSet broken;
    try {
      const nlohmann::json json = get_json(store.objects(), info.key);
      broken = with_context(info.key, [&] { return parse(json); });
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // removed since it was listed
      if (error.kind() != ErrorKind::kCorrupt) throw;
      spdlog::warn("a note of damage is ignored: {}", error.message());
    }
    visit(info.key, broken);
  });
}

}  // namespace

void put_damage_note(const Store& store, const Uuid& lineage, const SlotSet& broken) {
  if (broken.empty()) return;
  const SlotSet known = list_damage(store, lineage);
  nlohmann::json slots = nlohmann::json::object();
  std::size_t count = 0;
  const auto put = [&] {
    if (count == 0) return;
    const nlohmann::json json = {{"version", 1},
                                 {"slots", std::exchange(slots, nlohmann::json::object())}};
    put_json(store.objects(), json_key(lineage, LineagePart::kDamaged, Uuid::generate()),
             json.dump() + '\n');
    count = 0;
  };
  broken.for_each([&](const PackName& pack, std::uint32_t slot) {
    if (known.contains({.pack = pack, .slot = slot, .digest = {}})) return;
    slots[to_string(pack)].push_back(slot);
    if (++count == kMaxSlotsInNote) put();
  });
  put();
}

SlotSet list_damage(const Store& store, const Uuid& lineage) {
  SlotSet all;
  visit_notes(store, lineage, [&](const std::string&, const SlotSet& broken) {
    broken.for_each([&](const PackName& pack, std::uint32_t slot) { all.insert(pack, slot); });
  });
  return all;
}

void remove_damage_notes(const Store& store, const Uuid& lineage,
                         const std::function<bool(const PackName&)>& needed) {
  std::vector<std::string> useless;
  visit_notes(store, lineage, [&](const std::string& key, SlotSet broken) {
    broken.erase_packs([&](const PackName& pack) { return !needed(pack); });
    if (broken.empty()) useless.push_back(key);
  });
  for (const std::string& key : useless) store.objects().remove(key);
}

}  // namespace convoy
