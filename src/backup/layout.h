// The keys of a store's objects: docs/backup-format.md, "Objects". Nothing else in the project
// knows them.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/uuid.h"

namespace convoy {

enum class PackKind : std::uint8_t { kData, kTree };

// The name of a pack within its lineage: the backup that wrote it, and which of that backup's packs
// of the kind it is.
struct PackName {
  PackKind kind = PackKind::kData;
  Uuid backup;
  std::uint32_t number = 0;

  auto operator<=>(const PackName&) const = default;
};

// "<backup>-<number>.data" or ".tree".
std::string to_string(const PackName& pack);
// The inverse of to_string; nothing for any other text.
std::optional<PackName> parse_pack_name(std::string_view text);

// All of a store stands under this directory of its destination.
inline constexpr char kStoreDirectory[] = "convoy/";
inline constexpr char kStoreKey[] = "convoy/store.json";
inline constexpr char kLineagesPrefix[] = "convoy/volumes/";

// Directories of one lineage.
enum class LineagePart { kBackups, kPacks, kLeases, kPlans, kDamaged };
std::string lineage_prefix(const Uuid& lineage);
std::string prefix_of(const Uuid& lineage, LineagePart part);

std::string volume_key(const Uuid& lineage);
std::string pack_key(const Uuid& lineage, const PackName& pack);

// The key of "<id>.json" in a part of the lineage: a backup, a lease or a plan.
std::string json_key(const Uuid& lineage, LineagePart part, const Uuid& id);
// The <id> of such a key; nothing for any other key.
std::optional<Uuid> parse_json_key(std::string_view key);

// The UUID that `text` is in the one form that keys have, in lower case.
std::optional<Uuid> parse_key_uuid(std::string_view text);

}  // namespace convoy
