// UUIDs of volumes, snapshots, backups, pools and stores.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace convoy {

class Uuid {
 public:
  // The nil UUID.
  Uuid() = default;
  explicit Uuid(const std::array<std::uint8_t, 16>& bytes) : bytes_(bytes) {}

  // A new UUIDv7 (RFC 9562, 5.7): 48 bits of Unix time in milliseconds, then random bits, so UUIDs
  // sort by their time. Thread-safe.
  static Uuid generate();

  // A new UUIDv4 (RFC 9562, 5.4), all random: two of them differ from the first digits on, so that
  // people can name one by its start. Thread-safe.
  static Uuid random();

  // The UUID that `text` is in its canonical form, 8-4-4-4-12 hex digits of either case; nothing if
  // it is none.
  static std::optional<Uuid> parse(std::string_view text);

  // Canonical form in lower case.
  std::string to_string() const;

  const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
  auto operator<=>(const Uuid&) const = default;

 private:
  std::array<std::uint8_t, 16> bytes_ = {};
};

// `digits` random hex digits in lower case, from the kernel's generator.
std::string random_hex(std::size_t digits);

// A random number of `bits` bits, 1 to 64.
std::uint64_t random_bits(unsigned bits);

}  // namespace convoy
