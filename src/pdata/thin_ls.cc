#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>
#include <getopt.h>

#include "base/error.h"
#include "pdata/tool.h"

namespace convoy {
namespace {

constexpr const char* kUsage = R"(Usage: thin_ls [-o FIELD,...] [--no-headers] [-m] DEVICE|FILE
Lists the thin devices of a pool.

  -o, --format FIELD,... of DEV, MAPPED_BLOCKS, EXCLUSIVE_BLOCKS, SHARED_BLOCKS, MAPPED_SECTORS,
                         EXCLUSIVE_SECTORS, SHARED_SECTORS, MAPPED_BYTES, EXCLUSIVE_BYTES,
                         SHARED_BYTES, MAPPED, EXCLUSIVE, SHARED, TRANSACTION, CREATE_TIME, SNAP_TIME
                         (DEV,MAPPED,CREATE_TIME,SNAP_TIME if it isn't given). EXCLUSIVE... is what
                         no other device has, SHARED... the rest; both need all mappings read twice.
  --no-headers           without the names of the fields
  -m, --metadata-snap    read the metadata snapshot of a running pool
  -h, --help
  -V, --version
)";

// How often data blocks are mapped: never, once, or more. Takes memory for what is mapped, whatever
// the size that the pool claims to have.
class Sharing {
 public:
  void count(std::uint64_t data_block) {
    Word& word = words_[data_block / kWordBits];
    const std::uint64_t bit = std::uint64_t{1} << (data_block % kWordBits);
    word.shared |= word.mapped & bit;
    word.mapped |= bit;
  }
  bool is_exclusive(std::uint64_t data_block) const {
    const auto found = words_.find(data_block / kWordBits);
    if (found == words_.end()) return false;
    const std::uint64_t bit = std::uint64_t{1} << (data_block % kWordBits);
    return (found->second.mapped & ~found->second.shared & bit) != 0;
  }

 private:
  static constexpr std::uint64_t kWordBits = 64;
  struct Word {
    std::uint64_t mapped = 0;
    std::uint64_t shared = 0;
  };
  std::unordered_map<std::uint64_t, Word> words_;
};

// What a row is made of.
struct Row {
  std::uint32_t thin_id;
  DeviceDetails details;
  std::uint64_t exclusive_blocks;
  std::uint64_t block_sectors;

  std::uint64_t shared_blocks() const { return details.mapped_blocks - exclusive_blocks; }
};

// The largest binary unit in which the number has four digits, or a few more: up to 8 KiB of a unit
// stay in it, so that 5 GiB that are not a whole number show as 5120MiB.
std::string format_short(std::uint64_t bytes) {
  constexpr std::uint64_t kStep = 1024;
  constexpr std::array<const char*, 6> kUnits = {"", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  for (; bytes > kStep * kStep; ++unit) bytes /= kStep;
  if (bytes > 8 * kStep) {
    bytes = static_cast<std::uint64_t>(std::llround(static_cast<double>(bytes) / kStep));
    ++unit;
  }
  return std::to_string(bytes) + kUnits.at(unit);
}

struct Field {
  const char* name;
  bool needs_sharing;
  std::string (*format)(const Row& row);
};

std::string blocks(std::uint64_t count) {
  return std::to_string(count);
}
std::string sectors(const Row& row, std::uint64_t count) {
  return std::to_string(count * row.block_sectors);
}
std::string bytes(const Row& row, std::uint64_t count) {
  return std::to_string(count * row.block_sectors * kSectorBytes);
}
std::string short_size(const Row& row, std::uint64_t count) {
  return format_short(count * row.block_sectors * kSectorBytes);
}

constexpr std::array<Field, 16> kFields = {{
    {"DEV", false, [](const Row& r) { return std::to_string(r.thin_id); }},
    {"MAPPED_BLOCKS", false, [](const Row& r) { return blocks(r.details.mapped_blocks); }},
    {"EXCLUSIVE_BLOCKS", true, [](const Row& r) { return blocks(r.exclusive_blocks); }},
    {"SHARED_BLOCKS", true, [](const Row& r) { return blocks(r.shared_blocks()); }},
    {"MAPPED_SECTORS", false, [](const Row& r) { return sectors(r, r.details.mapped_blocks); }},
    {"EXCLUSIVE_SECTORS", true, [](const Row& r) { return sectors(r, r.exclusive_blocks); }},
    {"SHARED_SECTORS", true, [](const Row& r) { return sectors(r, r.shared_blocks()); }},
    {"MAPPED_BYTES", false, [](const Row& r) { return bytes(r, r.details.mapped_blocks); }},
    {"EXCLUSIVE_BYTES", true, [](const Row& r) { return bytes(r, r.exclusive_blocks); }},
    {"SHARED_BYTES", true, [](const Row& r) { return bytes(r, r.shared_blocks()); }},
    {"MAPPED", false, [](const Row& r) { return short_size(r, r.details.mapped_blocks); }},
    {"EXCLUSIVE", true, [](const Row& r) { return short_size(r, r.exclusive_blocks); }},
    {"SHARED", true, [](const Row& r) { return short_size(r, r.shared_blocks()); }},
    {"TRANSACTION", false, [](const Row& r) { return std::to_string(r.details.transaction_id); }},
    {"CREATE_TIME", false, [](const Row& r) { return std::to_string(r.details.creation_time); }},
    {"SNAP_TIME", false, [](const Row& r) { return std::to_string(r.details.snapshotted_time); }},
}};

std::vector<const Field*> parse_fields(std::string_view list) {
  std::vector<const Field*> fields;
  while (!list.empty()) {
    const std::size_t end = std::min(list.find(','), list.size());
    const std::string_view name = list.substr(0, end);
    const auto* const field =
        std::ranges::find_if(kFields, [&](const Field& f) { return f.name == name; });
    if (field == kFields.end())
      throw Error(ErrorKind::kInvalidArgument, "there is no field '{}' (try --help)", name);
    fields.push_back(field);
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return fields;
}

std::vector<Row> rows_of(Metadata& metadata, bool with_sharing) {
  const auto devices = metadata.devices();
  Sharing sharing;
  if (with_sharing) {
    for (const auto& [thin_id, details] : devices)
      metadata.mappings(thin_id,
                        [&](const Mapping& mapping) { sharing.count(mapping.data_block); });
  }
  std::vector<Row> rows;
  rows.reserve(devices.size());
  for (const auto& [thin_id, details] : devices) {
    Row row = {thin_id, details, 0, metadata.superblock().data_block_size.count};
    if (with_sharing) {
      metadata.mappings(thin_id, [&](const Mapping& mapping) {
        if (sharing.is_exclusive(mapping.data_block)) ++row.exclusive_blocks;
      });
    }
    rows.push_back(row);
  }
  return rows;
}

// Columns as wide as their widest cell, aligned to the right.
void print_table(const std::vector<std::vector<std::string>>& lines, std::size_t columns) {
  std::vector<std::size_t> widths(columns, 0);
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < columns; ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  for (const auto& line : lines) {
    for (std::size_t i = 0; i < columns; ++i) fmt::print("{:>{}} ", line[i], widths[i]);
    fmt::print("\n");
  }
}

void list(const std::string& device, const MetadataChoice& choice,
          const std::vector<const Field*>& fields, bool headers) {
  Metadata metadata = open_metadata(device, choice);
  const bool with_sharing = std::ranges::any_of(fields, &Field::needs_sharing);
  std::vector<std::vector<std::string>> lines;
  if (headers) {
    lines.emplace_back();
    for (const Field* const field : fields) lines.back().emplace_back(field->name);
  }
  for (const Row& row : rows_of(metadata, with_sharing)) {
    lines.emplace_back();
    for (const Field* const field : fields) lines.back().push_back(field->format(row));
  }
  print_table(lines, fields.size());
}

int run(int count, char** arguments) {
  enum : int { kNoHeaders = 1 };
  const std::array<option, 6> known = {{{"format", required_argument, nullptr, 'o'},
                                        {"no-headers", no_argument, nullptr, kNoHeaders},
                                        {"metadata-snap", no_argument, nullptr, 'm'},
                                        {"help", no_argument, nullptr, 'h'},
                                        {"version", no_argument, nullptr, 'V'},
                                        {}}};
  MetadataChoice metadata;
  std::vector<const Field*> fields = parse_fields("DEV,MAPPED,CREATE_TIME,SNAP_TIME");
  bool headers = true;
  for (int c = 0; (c = getopt_long(count, arguments, "o:mhV", known.data(), nullptr)) != -1;) {
    switch (c) {
      case 'o':
        fields = parse_fields(optarg);
        break;
      case kNoHeaders:
        headers = false;
        break;
      case 'm':
        metadata = parse_metadata_choice(nullptr);
        break;
      case 'h':
        fmt::print("{}", kUsage);
        return 0;
      case 'V':
        fmt::print("{}\n", CONVOY_VERSION);
        return 0;
      default:
        return kUsageError;
    }
  }
  list(only_operand(count, arguments, "the metadata device, or a file"), metadata, fields, headers);
  return 0;
}

}  // namespace

const Tool kThinLs = {"thin_ls", "list a pool's thin devices", &run};

}  // namespace convoy
