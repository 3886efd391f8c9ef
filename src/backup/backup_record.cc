#include "backup/backup_record.h"

#include <array>
#include <bit>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "backup/json_fields.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"

namespace convoy {
namespace {

using nlohmann::json;

json optional_uuid(const std::optional<Uuid>& uuid) {
  return uuid ? json(uuid->to_string()) : json(nullptr);
}

json encode_root(const std::optional<Reference>& root) {
  if (!root) return nullptr;
  return {{"pack", to_string(root->pack)}, {"slot", root->slot}, {"digest", to_hex(root->digest)}};
}

// By backup and kind, in columns, which compress much better than a name for each pack: a volume of
// a TiB has 65,000.
json encode_packs(const PackUses& packs) {
  json encoded = json::object();
  for (const auto& [name, use] : packs) {
    const char* const kind = kPackKinds.at(static_cast<std::size_t>(name.kind)).second;
    json& columns = encoded[name.backup.to_string()][kind];
    json& numbers = columns["numbers"];
    if (!numbers.empty() && numbers.back()[1].get<std::uint64_t>() + 1 == name.number)
      numbers.back()[1] = name.number;
    else
      numbers.push_back({name.number, name.number});
    if (use.size == 0)
      throw Error(ErrorKind::kInternal, "the size of the pack {} is not known", to_string(name));
    columns["sizes"].push_back(use.size);
    columns["references"].push_back(use.references);
  }
  return encoded;
}

// Empty, or a name as is_valid_name takes it.
std::string parse_optional_name(const JsonFields& fields, const std::string& name) {
  return fields.text(name, kMaxNameLength).empty() ? std::string() : fields.name(name);
}

std::optional<Uuid> parse_optional_uuid(const JsonFields& fields, const std::string& name) {
  if (fields.is_null(name)) return std::nullopt;
  return fields.uuid(name);
}

Digest parse_digest(const JsonFields& fields, const std::string& name) {
  const std::string text = fields.text(name, 2 * Digest().size());
  Digest digest = {};
  for (std::size_t i = 0; i < digest.size() && 2 * i + 1 < text.size(); ++i) {
    digest[i] = static_cast<std::uint8_t>(std::strtoul(text.substr(2 * i, 2).c_str(), nullptr, 16));
  }
  if (to_hex(digest) != text) fields.refuse(name, "is not a digest in lower-case hex");
  return digest;
}

std::uint64_t parse_size(const JsonFields& fields) {
  const std::uint64_t size = fields.number("size", kMaxVolumeSize);
  if (size == 0 || size % kSectorBytes != 0) fields.refuse("size", "is not a number of sectors");
  return size;
}

std::uint32_t parse_chunk_size(const JsonFields& fields) {
  const std::uint64_t size = fields.number("chunk_size", kMaxChunkSize);
  if (size < kMinChunkSize || !std::has_single_bit(size)) {
    fields.refuse("chunk_size", "is not a power of two from 4 to 64 KiB");
  }
  return static_cast<std::uint32_t>(size);
}

BackupSource parse_source(const JsonFields& fields) {
  const JsonFields volume = fields.object("volume");
  const JsonFields snapshot = fields.object("snapshot");
  return {.lineage = fields.uuid("lineage"),
          .driver = parse_optional_name(fields, "driver"),
          .volume = {.uuid = volume.uuid("uuid"),
                     .name = volume.name("name"),
                     .created = volume.time("created"),
                     .filesystem = parse_optional_name(volume, "filesystem")},
          .snapshot = {.uuid = snapshot.uuid("uuid"),
                       .name = snapshot.name("name"),
                       .created = snapshot.time("created")},
          .size = parse_size(volume)};
}

BackupStatistics parse_statistics(const JsonFields& fields) {
  return {.bytes_read = fields.number("bytes_read", UINT64_MAX),
          .chunks_stored = fields.number("chunks_stored", UINT64_MAX),
          .chunks_reused = fields.number("chunks_reused", UINT64_MAX),
          .bytes_stored = fields.number("bytes_stored", UINT64_MAX)};
}

// An array of numbers from 1 to `max`.
std::vector<std::uint64_t> parse_column(const JsonFields& fields, const std::string& name,
                                        std::uint64_t max) {
  const json& array = fields.field(name);
  if (!array.is_array()) fields.refuse(name, "is not a list");
  std::vector<std::uint64_t> column;
  column.reserve(array.size());
  for (const json& element : array) {
    if (!element.is_number_unsigned() || element.get<std::uint64_t>() == 0 ||
        element.get<std::uint64_t>() > max)
      fields.refuse(name, "has an element that can't be");
    column.push_back(element.get<std::uint64_t>());
  }
  return column;
}

// `count` numbers.
std::vector<std::uint32_t> parse_numbers(const JsonFields& fields, std::size_t count) {
  std::vector<std::uint32_t> numbers;
  for (const auto& [first, last] : fields.ranges("numbers")) {
    if (last - first >= count - numbers.size()) fields.refuse("numbers", "has too many packs");
    for (std::uint64_t number = first; number <= last; ++number)
      numbers.push_back(static_cast<std::uint32_t>(number));
  }
  return numbers;
}

void parse_packs_of(const Uuid& backup, PackKind kind, const JsonFields& fields, PackUses& uses) {
  const auto sizes = parse_column(fields, "sizes", kMaxPackSize);
  const auto references = parse_column(fields, "references", kMaxVolumeSize / kMinChunkSize);
  const auto numbers = parse_numbers(fields, sizes.size());
  if (numbers.size() != sizes.size() || numbers.size() != references.size())
    fields.refuse("numbers", "has another length than sizes or references");
  for (std::size_t i = 0; i < numbers.size(); ++i)
    uses[{kind, backup, numbers[i]}] = {.size = sizes[i], .references = references[i]};
}

PackUses parse_packs(const JsonFields& fields) {
  const JsonFields packs = fields.object("packs");
  PackUses uses;
  for (const auto& [name, value] : fields.field("packs").items()) {
    const auto backup = parse_key_uuid(name);
    if (!backup) packs.refuse(name, "is not the UUID of a backup");
    const JsonFields of_backup = packs.object(name);
    for (const auto& [kind, kind_name] : kPackKinds) {
      if (value.contains(kind_name))
        parse_packs_of(*backup, kind, of_backup.object(kind_name), uses);
    }
  }
  return uses;
}

std::optional<Reference> parse_root(const JsonFields& tree, const PackUses& packs) {
  if (tree.is_null("root")) return std::nullopt;
  const JsonFields root = tree.object("root");
  const auto pack = parse_pack_name(root.text("pack", 100));
  if (!pack || pack->kind != PackKind::kTree || !packs.contains(*pack)) {
    root.refuse("pack", "is not one of the backup's packs of the kind tree");
  }
  return Reference{.pack = *pack,
                   .slot = static_cast<std::uint32_t>(root.number("slot", kMaxPackSlots - 1)),
                   .digest = parse_digest(root, "digest")};
}

}  // namespace

std::string BackupInfo::name() const {
  const std::string digits = to_hex(std::span(uuid.bytes()).last(8));
  return "backup-" + digits;
}

std::string encode_record(const BackupRecord& record) {
  const BackupInfo& info = record.info;
  const BackupSource& source = info.source;
  const json document = {
      {"version", 1},
      {"uuid", info.uuid.to_string()},
      {"name", info.name()},
      {"created", format_rfc3339(info.created)},
      {"parent", optional_uuid(info.parent)},
      {"lineage", source.lineage.to_string()},
      {"driver", source.driver},
      {"volume",
       {{"uuid", source.volume.uuid.to_string()},
        {"name", source.volume.name},
        {"created", format_rfc3339(source.volume.created)},
        {"filesystem", source.volume.filesystem},
        {"size", source.size}}},
      {"snapshot",
       {{"uuid", source.snapshot.uuid.to_string()},
        {"name", source.snapshot.name},
        {"created", format_rfc3339(source.snapshot.created)}}},
      {"chunk_size", record.chunk_size},
      {"tree", {{"height", record.shape().height()}, {"root", encode_root(record.root)}}},
      {"packs", encode_packs(record.packs)},
      {"statistics",
       {{"bytes_read", info.statistics.bytes_read},
        {"chunks_stored", info.statistics.chunks_stored},
        {"chunks_reused", info.statistics.chunks_reused},
        {"bytes_stored", info.statistics.bytes_stored}}},
  };
  return dump_with_checksum(document);
}

BackupRecord parse_record(std::span<const std::byte> text) {
  const json document = parse_json(text);
  const JsonFields fields(document);
  fields.check_version();
  check_checksum(as_text(text));
  BackupRecord record{.info = {.uuid = fields.uuid("uuid"),
                               .created = fields.time("created"),
                               .source = parse_source(fields),
                               .parent = parse_optional_uuid(fields, "parent"),
                               .statistics = parse_statistics(fields.object("statistics"))},
                      .chunk_size = parse_chunk_size(fields),
                      .root = std::nullopt,
                      .packs = parse_packs(fields)};
  const JsonFields tree = fields.object("tree");
  if (tree.number("height", kMaxTreeHeight) != record.shape().height()) {
    tree.refuse("height", "does not agree with the sizes of volume and chunk");
  }
  record.root = parse_root(tree, record.packs);
  return record;
}

}  // namespace convoy
