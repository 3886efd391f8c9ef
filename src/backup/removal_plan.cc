#include "backup/removal_plan.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include "backup/json_fields.h"
#include "base/error.h"

namespace convoy {
namespace {

std::vector<PackName> parse_packs(const JsonFields& fields, const std::string& name) {
  const nlohmann::json& list = fields.field(name);
  if (!list.is_array()) fields.refuse(name, "is not a list");
  std::vector<PackName> packs;
  packs.reserve(list.size());
  for (const nlohmann::json& element : list) {
    const auto pack =
        element.is_string() ? parse_pack_name(element.get_ref<const std::string&>()) : std::nullopt;
    if (!pack) fields.refuse(name, "has an element that is not the name of a pack");
    packs.push_back(*pack);
  }
  return packs;
}

nlohmann::json encode_packs(const std::vector<PackName>& packs) {
  nlohmann::json names = nlohmann::json::array();
  for (const PackName& pack : packs) names.push_back(to_string(pack));
  return names;
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
    RemovalPlan plan{
        .key = info.key, .put = info.modified, .packs = {}, .rewrites = {}, .known = {}};
    try {
      const nlohmann::json json = get_listed_json(store.objects(), info.key);
      with_context(info.key, [&] {
        const JsonFields fields(json);
        fields.check_version();
        plan.packs = parse_packs(fields, "packs");
        plan.rewrites = parse_packs(fields, "rewrites");
        plan.known = parse_uuids(fields, "known");
      });
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) return;  // its remover is done
      if (error.kind() != ErrorKind::kCorrupt) throw;
      spdlog::warn("a plan of removal is ignored: {}", error.message());
    }
    plans.push_back(std::move(plan));
  });
  return plans;
}

}  // namespace convoy
