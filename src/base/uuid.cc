#include "base/uuid.h"

#include <cerrno>
#include <chrono>
#include <span>

#include <fmt/format.h>
#include <sys/random.h>

#include "base/error.h"

namespace convoy {
namespace {

void fill_random(std::span<std::uint8_t> out) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t count = getrandom(out.data() + done, out.size() - done, 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error(errno, "getrandom");
    done += static_cast<std::size_t>(count);
  }
}

// The bits that RFC 9562 keeps for version and variant.
std::array<std::uint8_t, 16> with_version(std::array<std::uint8_t, 16> bytes, unsigned version) {
  bytes[6] = static_cast<std::uint8_t>(version << 4U | (bytes[6] & 0x0fU));
  bytes[8] = static_cast<std::uint8_t>(0x80U | (bytes[8] & 0x3fU));
  return bytes;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_dash_position(std::size_t i) {
  return i == 8 || i == 13 || i == 18 || i == 23;
}

}  // namespace

Uuid Uuid::random() {
  std::array<std::uint8_t, 16> bytes;
  fill_random(bytes);
  return Uuid(with_version(bytes, 4));
}

Uuid Uuid::generate() {
  std::array<std::uint8_t, 16> bytes;
  fill_random(bytes);
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const auto milliseconds = static_cast<std::uint64_t>(now.count());
  for (unsigned i = 0; i < 6; ++i)
    bytes[i] = static_cast<std::uint8_t>(milliseconds >> (40 - 8 * i));
  return Uuid(with_version(bytes, 7));
}

std::optional<Uuid> Uuid::parse(std::string_view text) {
  if (text.size() != 36) return std::nullopt;
  std::array<std::uint8_t, 16> bytes = {};
  std::size_t digit = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_dash_position(i)) {
      if (text[i] != '-') return std::nullopt;
      continue;
    }
    const int value = hex_value(text[i]);
    if (value < 0) return std::nullopt;
    auto& byte = bytes[digit / 2];
    byte = static_cast<std::uint8_t>((static_cast<unsigned>(byte) << 4U) |
                                     static_cast<unsigned>(value));
    ++digit;
  }
  return Uuid(bytes);
}

std::string Uuid::to_string() const {
  std::string text;
  text.reserve(36);
  for (const std::uint8_t byte : bytes_) {
    if (is_dash_position(text.size())) text += '-';
    fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  }
  return text;
}

std::string random_hex(std::size_t digits) {
  std::string text;
  for (std::size_t i = 0; i < digits; ++i) text += fmt::format("{:x}", random_bits(4));
  return text;
}

std::uint64_t random_bits(unsigned bits) {
  std::array<std::uint8_t, 8> bytes;
  fill_random(bytes);
  std::uint64_t value = 0;
  for (const std::uint8_t byte : bytes) value = (value << 8U) | byte;
  return value >> (64U - bits);
}

}  // namespace convoy
