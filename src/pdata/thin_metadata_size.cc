#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <getopt.h>

#include "base/error.h"
#include "pdata/tool.h"
#include "thinmeta/size_estimate.h"

namespace convoy {
namespace {

constexpr const char* kUsage =
    R"(Usage: thin_metadata_size -b SIZE -s SIZE -m NUMBER [-u UNIT] [-n[short|long]]
Estimates how large the metadata of a thin pool can become.

  -b, --block-size SIZE        of the pool's blocks, a power of two
  -s, --pool-size SIZE         of the data device
  -m, --max-thins NUMBER       of volumes and snapshots in all
  -u, --unit UNIT              of the answer
  -n, --numeric-only[=short|long]
                               the number alone, or with its unit
  -h, --help
  -V, --version

Units, of SIZE too, are the letters bskKmMgGtTpPeEzZyY (bytes, sectors, kibibytes, kilobytes,
mebibytes, megabytes, ...) or the begins of such words. Without one it is sectors of 512 bytes.
)";

struct Unit {
  char letter;
  const char* name;
  double bytes;
};

// Debian's tool has the same letters and words.
constexpr double kBinary = 1024;
constexpr double kDecimal = 1000;
constexpr std::array<Unit, 18> kUnits = {{
    {'b', "bytes", 1},
    {'s', "sectors", 512},
    {'k', "kibibytes", kBinary},
    {'K', "kilobytes", kDecimal},
    {'m', "mebibytes", kBinary* kBinary},
    {'M', "megabytes", kDecimal* kDecimal},
    {'g', "gibibytes", 0x1p30},
    {'G', "gigabytes", 1e9},
    {'t', "tebibytes", 0x1p40},
    {'T', "terabytes", 1e12},
    {'p', "pebibytes", 0x1p50},
    {'P', "petabytes", 1e15},
    {'e', "ebibytes", 0x1p60},
    {'E', "exabytes", 1e18},
    {'z', "zebibytes", 0x1p70},
    {'Z', "zetabytes", 1e21},
    {'y', "yobibytes", 0x1p80},
    {'Y', "yottabytes", 1e24},
}};
constexpr const Unit& kSectorUnit = kUnits[1];

const Unit& parse_unit(const std::string& text) {
  for (const Unit& unit : kUnits) {
    if (text.size() == 1 ? text[0] == unit.letter
                         : !text.empty() && std::string_view(unit.name).starts_with(text)) {
      return unit;
    }
  }
  throw Error(ErrorKind::kInvalidArgument,
              "'{}' is no unit: give one of the letters bskKmMgGtTpPeEzZyY", text);
}

struct Quantity {
  std::uint64_t value = 0;
  std::string text;  // as the answer repeats it
};

// A number, and what it counts: sectors for sizes, or itself.
Quantity parse_quantity(const char* text, const char* what, double counted_bytes,
                        const Unit& default_unit, const char* default_name) {
  const std::size_t digits = std::strspn(text, "0123456789");
  const std::string number(text, digits);
  if (number.empty())
    throw Error(ErrorKind::kInvalidArgument, "the {} '{}' is no number", what, text);
  const bool has_unit = text[digits] != '\0';
  const Unit& unit = has_unit ? parse_unit(text + digits) : default_unit;
  const double value = std::floor(static_cast<double>(parse_number(number.c_str(), what)) *
                                  unit.bytes / counted_bytes);
  if (value >= 0x1p63)
    throw Error(ErrorKind::kInvalidArgument, "the {} '{}' is too large", what, text);
  return {static_cast<std::uint64_t>(value), number + (has_unit ? unit.name : default_name)};
}

enum class NumericOnly { kNo, kNumber, kShort, kLong };

NumericOnly parse_numeric_only(const char* text) {
  if (text == nullptr) return NumericOnly::kNumber;
  const std::string_view word = text;
  if (!word.empty() && std::string_view("long").starts_with(word)) return NumericOnly::kLong;
  if (!word.empty() && std::string_view("short").starts_with(word)) return NumericOnly::kShort;
  throw Error(ErrorKind::kInvalidArgument, "-n takes 'short' or 'long', not '{}'", text);
}

std::string format_amount(double amount) {
  const double whole = std::floor(amount);
  if (amount == whole) return fmt::format("{:.0f}", amount);
  return amount - whole < 0.01 ? fmt::format("{:.2e}", amount) : fmt::format("{:.2f}", amount);
}

int run(int count, char** arguments) {
  const std::array<option, 8> options = {{{"block-size", required_argument, nullptr, 'b'},
                                          {"pool-size", required_argument, nullptr, 's'},
                                          {"max-thins", required_argument, nullptr, 'm'},
                                          {"unit", required_argument, nullptr, 'u'},
                                          {"numeric-only", optional_argument, nullptr, 'n'},
                                          {"help", no_argument, nullptr, 'h'},
                                          {"version", no_argument, nullptr, 'V'},
                                          {}}};
  Quantity block_size, pool_size, thins;
  const Unit* unit = &kSectorUnit;
  NumericOnly numeric_only = NumericOnly::kNo;
  for (int c = 0;
       (c = getopt_long(count, arguments, "b:s:m:u:n::hV", options.data(), nullptr)) != -1;) {
    switch (c) {
      case 'b':
        block_size = parse_quantity(optarg, "block size", kSectorBytes, kSectorUnit, "sectors");
        break;
      case 's':
        pool_size = parse_quantity(optarg, "pool size", kSectorBytes, kSectorUnit, "sectors");
        break;
      case 'm':
        thins = parse_quantity(optarg, "number of thin devices", 1, kUnits[0], "");
        break;
      case 'u':
        unit = &parse_unit(optarg);
        break;
      case 'n':
        numeric_only = parse_numeric_only(optarg);
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
  if (block_size.value == 0) throw Error(ErrorKind::kInvalidArgument, "give a --block-size");
  if (pool_size.value == 0) throw Error(ErrorKind::kInvalidArgument, "give a --pool-size");
  if (thins.value == 0) throw Error(ErrorKind::kInvalidArgument, "give --max-thins");
  if ((block_size.value & (block_size.value - 1)) != 0)
    throw Error(ErrorKind::kInvalidArgument, "the block size {} is not a power of two",
                block_size.text);
  if (pool_size.value <= block_size.value) {
    throw Error(ErrorKind::kInvalidArgument,
                "the pool size {} is not larger than the block size {}", pool_size.text,
                block_size.text);
  }

  constexpr double kMetadataBlock = 4096;
  const std::uint64_t blocks =
      estimate_metadata_blocks({pool_size.value}, {block_size.value}, thins.value);
  const std::string amount =
      format_amount(static_cast<double>(blocks) * kMetadataBlock / unit->bytes);
  switch (numeric_only) {
    case NumericOnly::kNo:
      fmt::print(
          "thin_metadata_size - {} {} estimated metadata area size for \"--block-size={} "
          "--pool-size={} --max-thins={}\"\n",
          amount, unit->name, block_size.text, pool_size.text, thins.text);
      break;
    case NumericOnly::kNumber:
      fmt::print("{}\n", amount);
      break;
    case NumericOnly::kShort:
      fmt::print("{}{}\n", amount, unit->letter);
      break;
    case NumericOnly::kLong:
      fmt::print("{}{}\n", amount, unit->name);
      break;
  }
  return 0;
}

}  // namespace

const Tool kThinMetadataSize = {"thin_metadata_size", "estimate the size of a pool's metadata",
                                &run};

}  // namespace convoy
