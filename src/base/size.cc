#include "base/size.h"

#include <array>
#include <cctype>
#include <charconv>
#include <limits>

#include <fmt/format.h>

#include "base/error.h"

namespace convoy {
namespace {

constexpr std::string_view kSuffixes = "KMGTP";

Error bad_size(std::string_view text) {
  return {ErrorKind::kInvalidArgument,
          "'{}' is not a size: give bytes, or a whole number with K, M, G or T, such as 20G", text};
}

}  // namespace

std::uint64_t parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{}) throw bad_size(text);

  std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
  if (suffix.empty()) return number;
  const char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(suffix[0])));
  const std::size_t power = kSuffixes.find(letter);
  suffix.remove_prefix(1);
  const bool known_tail =
      suffix.empty() || suffix == "B" || suffix == "b" || suffix == "iB" || suffix == "ib";
  if (power == std::string_view::npos || !known_tail) throw bad_size(text);

  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  if (number > (std::numeric_limits<std::uint64_t>::max() >> shift)) throw bad_size(text);
  return number << shift;
}

std::string format_size(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace convoy
