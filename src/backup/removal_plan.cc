#include "backup/removal_plan.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "base/error.h"

namespace convoy {
namespace {

// By backup and kind, as ranges of numbers: a name for each pack would make the plan of a deletion
// too long for readers from 20 TiB on.
nlohmann::json encode_packs(const PackSet& packs) {
  nlohmann::json encoded = nlohmann::json::object();
  for (const auto& [first, last] : packs.ranges()) {
    const char* const kind = kPackKinds.at(static_cast<std::size_t>(first.kind)).second;
    encoded[first.backup.to_string()][kind].push_back({first.number, last});
  }
  return encoded;
}

PackSet parse_packs(const JsonFields& fields, const std::string& name) {
  const JsonFields by_backup = fields.object(name);
  PackSet packs;
  for (const auto& [uuid, kinds] : fields.field(name).items()) {
    const auto backup = parse_key_uuid(uuid);
    if (!backup) by_backup.refuse(uuid, "is not the UUID of a backup");
    const JsonFields by_kind = by_backup.object(uuid);
    for (const auto& [kind, kind_name] : kPackKinds) {
      if (!by_kind.has(kind_name)) continue;
      for (const auto& [first, last] : by_kind.ranges(kind_name))
        packs.insert_range({kind, *backup, first}, last);
      if (packs.ranges().size() > kMaxRangesInPlan) fields.refuse(name, "has too many packs");
    }
  }
  return packs;
}

std::set<Uuid> parse_uuids(const JsonFields& fields, const std::string& name) {
  const nlohmann::json& list = fields.field(name);
  if (!list.is_array()) fields.refuse(name, "is not a list");
  std::set<Uuid> uuids;
  for (const nlohmann::json& element : list) {
    const auto uuid =
        element.is_string() ? Uuid::parse(element.get_ref<const std::string&>()) : std::nullopt;
    if (!uuid) fields.refuse(name, "has an element that is no UUID");
    uuids.insert(*uuid);
  }
  return uuids;
}

nlohmann::json encode_uuids(const std::set<Uuid>& uuids) {
  nlohmann::json texts = nlohmann::json::array();
  for (const Uuid& uuid : uuids) texts.push_back(uuid.to_string());
  return texts;
}

RemovalPlan parse_plan(const JsonFields& fields) {
  fields.check_version();
  return {.key = {},
          .put = {},
          .packs = parse_packs(fields, "packs"),
          .rewrites = parse_packs(fields, "rewrites"),
          .known = parse_uuids(fields, "known")};
}

}  // namespace

void put_plan(const Store& store, const RemovalPlan& plan) {
  const nlohmann::json json = {{"version", 1},
                               {"packs", encode_packs(plan.packs)},
                               {"rewrites", encode_packs(plan.rewrites)},
                               {"known", encode_uuids(plan.known)}};
  put_json(store.objects(), plan.key, json.dump() + '\n');
}

std::vector<RemovalPlan> list_plans(const Store& store, const Uuid& lineage) {
  std::vector<RemovalPlan> plans;
  store.objects().list(prefix_of(lineage, LineagePart::kPlans), [&](const ObjectInfo& info) {
    if (!parse_json_key(info.key)) return;
    RemovalPlan plan;
    try {
      const nlohmann::json json = get_listed_json(store.objects(), info.key);
      plan = with_context(info.key, [&] { return parse_plan(JsonFields(json)); });
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // its remover is done
      if (error.kind() != ErrorKind::kCorrupt) throw;
      spdlog::warn("a plan of removal is ignored: {}", error.message());
    }
    plan.key = info.key;
    plan.put = info.modified;
    plans.push_back(std::move(plan));
  });
  return plans;
}

}  // namespace convoy
