#include "backup/layout.h"

#include <charconv>

#include <fmt/format.h>

namespace convoy {
namespace {

constexpr std::size_t kUuidLength = 36;
constexpr std::string_view kDataSuffix = ".data";
constexpr std::string_view kTreeSuffix = ".tree";
constexpr std::string_view kJsonSuffix = ".json";
constexpr std::string_view kRecordSuffix = ".json.zst";
constexpr std::string_view kRevokedSuffix = ".revoked";

std::string_view directory_of(LineagePart part) {
  switch (part) {
    case LineagePart::kBackups:
      return "backups";
    case LineagePart::kPacks:
      return "packs";
    case LineagePart::kRewrittenPacks:
      return "rewritten";
    case LineagePart::kLeases:
      return "leases";
    case LineagePart::kPlans:
      return "gc";
    case LineagePart::kDamaged:
      return "damaged";
  }
  return "";
}

// The UUID that is the last component of the key but for the suffix.
std::optional<Uuid> parse_uuid_key(std::string_view key, std::string_view suffix) {
  const std::string_view name = key.substr(key.rfind('/') + 1);
  if (!name.ends_with(suffix)) return std::nullopt;
  return parse_key_uuid(name.substr(0, name.size() - suffix.size()));
}

}  // namespace

std::string to_string(const PackName& pack) {
  return fmt::format("{}/{}{}", pack.backup.to_string(), pack.number,
                     pack.kind == PackKind::kData ? kDataSuffix : kTreeSuffix);
}

std::optional<PackName> parse_pack_name(std::string_view text) {
  if (text.size() < kUuidLength + 2) return std::nullopt;
  const auto backup = parse_key_uuid(text.substr(0, kUuidLength));
  if (!backup) return std::nullopt;
  PackName pack{.backup = *backup};
  pack.kind = text.ends_with(kTreeSuffix) ? PackKind::kTree : PackKind::kData;
  std::from_chars(text.data() + kUuidLength + 1, text.data() + text.size(), pack.number);
  // Whatever does not come back equal had another form: signs, leading zeros, too large a number,
  // another suffix.
  if (to_string(pack) != text) return std::nullopt;
  return pack;
}

std::string lineage_prefix(const Uuid& lineage) {
  return fmt::format("{}{}/", kLineagesPrefix, lineage.to_string());
}

std::string prefix_of(const Uuid& lineage, LineagePart part) {
  return fmt::format("{}{}/", lineage_prefix(lineage), directory_of(part));
}

std::string volume_key(const Uuid& lineage) {
  return lineage_prefix(lineage) + "volume.json";
}

std::string packs_prefix(const Uuid& lineage, const Uuid& backup) {
  return fmt::format("{}{}/", prefix_of(lineage, LineagePart::kPacks), backup.to_string());
}

std::string pack_key(const Uuid& lineage, const PackName& pack) {
  return prefix_of(lineage, LineagePart::kPacks) + to_string(pack);
}

std::string rewritten_pack_key(const Uuid& lineage, const PackName& pack, const Uuid& rewriting) {
  return fmt::format("{}{}.{}", prefix_of(lineage, LineagePart::kRewrittenPacks), to_string(pack),
                     rewriting.to_string());
}

std::optional<PackObject> parse_pack_key(std::string_view key) {
  const std::size_t name = key.rfind('/');
  const std::size_t backup = name == std::string_view::npos ? name : key.rfind('/', name - 1);
  if (backup == std::string_view::npos) return std::nullopt;
  std::string_view text = key.substr(backup + 1);
  PackObject object;
  if (text.size() > kUuidLength) {
    object.rewriting = parse_key_uuid(text.substr(text.size() - kUuidLength));
    if (object.rewriting) text.remove_suffix(kUuidLength + 1);
  }
  const auto pack = parse_pack_name(text);
  if (!pack) return std::nullopt;
  object.pack = *pack;
  return object;
}

std::string backup_key(const Uuid& lineage, const Uuid& backup) {
  return fmt::format("{}{}{}", prefix_of(lineage, LineagePart::kBackups), backup.to_string(),
                     kRecordSuffix);
}

std::optional<Uuid> parse_backup_key(std::string_view key) {
  return parse_uuid_key(key, kRecordSuffix);
}

std::string revocation_key(const Uuid& lineage, const Uuid& backup) {
  return fmt::format("{}{}{}", prefix_of(lineage, LineagePart::kLeases), backup.to_string(),
                     kRevokedSuffix);
}

std::optional<Uuid> parse_revocation_key(std::string_view key) {
  return parse_uuid_key(key, kRevokedSuffix);
}

std::string json_key(const Uuid& lineage, LineagePart part, const Uuid& id) {
  return fmt::format("{}{}{}", prefix_of(lineage, part), id.to_string(), kJsonSuffix);
}

std::optional<Uuid> parse_json_key(std::string_view key) {
  return parse_uuid_key(key, kJsonSuffix);
}

std::optional<Uuid> parse_key_uuid(std::string_view text) {
  const auto uuid = Uuid::parse(text);
  if (!uuid || uuid->to_string() != text) return std::nullopt;
  return uuid;
}

}  // namespace convoy
