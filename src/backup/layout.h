// The keys of a store's objects: docs/backup-format.md, "Objects". Nothing else in the project
// knows them.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/uuid.h"

namespace convoy {

enum class PackKind : std::uint8_t { kData, kTree };

// By their values, with what they are called in JSON.
inline constexpr std::array<std::pair<PackKind, const char*>, 2> kPackKinds = {
    {{PackKind::kData, "data"}, {PackKind::kTree, "tree"}}};

// The name of a pack within its lineage: the backup that wrote it, and which of that backup's packs
// of the kind it is.
struct PackName {
  PackKind kind = PackKind::kData;
  Uuid backup;
  std::uint32_t number = 0;

  auto operator<=>(const PackName&) const = default;
};

// "<backup>/<number>.data" or ".tree".
std::string to_string(const PackName& pack);
// The inverse of to_string; nothing for any other text.
std::optional<PackName> parse_pack_name(std::string_view text);

// An object that holds a pack: the one that its writer put, or one made of it later, which has no
// bytes for slots that nobody needed by then.
struct PackObject {
  PackName pack;
  std::optional<Uuid> rewriting = std::nullopt;  // which time it was; nothing: as it was written

  auto operator<=>(const PackObject&) const = default;
};

// All of a store stands under this directory of its destination.
inline constexpr char kStoreDirectory[] = "convoy/";
inline constexpr char kStoreKey[] = "convoy/store.json";
inline constexpr char kLineagesPrefix[] = "convoy/volumes/";

// Directories of one lineage.
enum class LineagePart { kBackups, kPacks, kRewrittenPacks, kLeases, kPlans, kDamaged };
std::string lineage_prefix(const Uuid& lineage);
std::string prefix_of(const Uuid& lineage, LineagePart part);

std::string volume_key(const Uuid& lineage);

// The directory of the packs that one backup has written, as they were written.
std::string packs_prefix(const Uuid& lineage, const Uuid& backup);
std::string pack_key(const Uuid& lineage, const PackName& pack);
std::string rewritten_pack_key(const Uuid& lineage, const PackName& pack, const Uuid& rewriting);
// The object of either; nothing for any other key.
std::optional<PackObject> parse_pack_key(std::string_view key);

// A backup's record, and its inverse: nothing for any other key.
std::string backup_key(const Uuid& lineage, const Uuid& backup);
std::optional<Uuid> parse_backup_key(std::string_view key);

// What takes a writer's lease away: see revocations in backup/lease.h.
std::string revocation_key(const Uuid& lineage, const Uuid& backup);
std::optional<Uuid> parse_revocation_key(std::string_view key);

// The key of "<id>.json" in a part of the lineage: a lease, a plan or a note of damage.
std::string json_key(const Uuid& lineage, LineagePart part, const Uuid& id);
// The <id> of such a key; nothing for any other key.
std::optional<Uuid> parse_json_key(std::string_view key);

// The UUID that `text` is in the one form that keys have, in lower case.
std::optional<Uuid> parse_key_uuid(std::string_view text);

}  // namespace convoy
