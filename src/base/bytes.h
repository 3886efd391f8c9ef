// Spans of bytes, and the little-endian integers that both of our disk formats are made of.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace convoy {

static_assert(std::endian::native == std::endian::little,
              "a big-endian host needs byte swaps in LittleEndian");

// An integer field of a disk structure: little-endian, without alignment.
template <typename Integer>
class LittleEndian {
  static_assert(std::is_unsigned_v<Integer>);

 public:
  LittleEndian() = default;
  LittleEndian(Integer value) {
    std::memcpy(bytes_, &value, sizeof value);
  }  // NOLINT(google-explicit-constructor)

  Integer get() const {
    Integer value;
    std::memcpy(&value, bytes_, sizeof value);
    return value;
  }
  operator Integer() const { return get(); }  // NOLINT(google-explicit-constructor)

 private:
  std::byte bytes_[sizeof(Integer)] = {};
};

using Le16 = LittleEndian<std::uint16_t>;
using Le32 = LittleEndian<std::uint32_t>;
using Le64 = LittleEndian<std::uint64_t>;
static_assert(sizeof(Le16) == 2 && alignof(Le64) == 1);

inline std::span<const std::byte> as_bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The bytes of one disk structure.
template <typename Struct>
std::span<const std::byte> bytes_of(const Struct& value) {
  static_assert(std::is_trivially_copyable_v<Struct>);
  return std::as_bytes(std::span(&value, 1));
}

// True if every byte is zero.
inline bool all_zero(std::span<const std::byte> bytes) {
  // Comparing the span with itself, shifted by one, lets the C library's vectorised memcmp do the
  // work.
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace convoy
