#include "backup/damage_notes.h"

#include <algorithm>
#include <functional>

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

DamagedPlaces parse(const nlohmann::json& json) {
  const JsonFields fields(json);
  fields.check_version();
  const nlohmann::json& packs = fields.field("slots");
  if (!packs.is_object()) fields.refuse("slots", "is no object");
  DamagedPlaces places;
  for (const auto& [name, slots] : packs.items()) {
    const auto pack = parse_pack_name(name);
    if (!pack || !slots.is_array()) fields.refuse("slots", "is not made of packs and their slots");
    for (const nlohmann::json& slot : slots) {
      if (!slot.is_number_unsigned() || slot.get<std::uint64_t>() >= kMaxPackSlots)
        fields.refuse("slots", "has an element that is no slot");
      places.emplace(*pack, slot.get<std::uint32_t>());
    }
  }
  return places;
}

void visit_notes(
    const Store& store, const Uuid& lineage,
    const std::function<void(const std::string& key, const DamagedPlaces& places)>& visit) {
  store.objects().list(prefix_of(lineage, LineagePart::kDamaged), [&](const ObjectInfo& info) {
    if (!parse_json_key(info.key)) return;
    DamagedPlaces places;
    try {
      const nlohmann::json json = get_json(store.objects(), info.key);
      places = with_context(info.key, [&] { return parse(json); });
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // removed since it was listed
      if (error.kind() != ErrorKind::kCorrupt) throw;
      spdlog::warn("a note of damage is ignored: {}", error.message());
    }
    visit(info.key, places);
  });
}

}  // namespace

void put_damage_note(const Store& store, const Uuid& lineage, const DamagedPlaces& places) {
  nlohmann::json slots = nlohmann::json::object();
  for (const auto& [pack, slot] : places) slots[to_string(pack)].push_back(slot);
  const nlohmann::json json = {{"version", 1}, {"slots", slots}};
  put_json(store.objects(), json_key(lineage, LineagePart::kDamaged, Uuid::generate()),
           json.dump() + '\n');
}

DamagedPlaces list_damage(const Store& store, const Uuid& lineage) {
  DamagedPlaces all;
  visit_notes(store, lineage, [&](const std::string&, const DamagedPlaces& places) {
    all.insert(places.begin(), places.end());
  });
  return all;
}

void remove_damage_notes(const Store& store, const Uuid& lineage,
                         const std::function<bool(const PackName&)>& needed) {
  std::vector<std::string> useless;
  visit_notes(store, lineage, [&](const std::string& key, const DamagedPlaces& places) {
    if (std::ranges::none_of(places, [&](const PackPlace& place) { return needed(place.first); }))
      useless.push_back(key);
  });
  for (const std::string& key : useless) store.objects().remove(key);
}

}  // namespace convoy
