// Sectors and pool blocks as types of their own, so that neither is taken for the other or for
// bytes. Plain std::uint64_t sizes and offsets are bytes everywhere in the project.
#pragma once

#include <compare>
#include <cstdint>

namespace convoy {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;

// The kernel's block layer counts in these, whatever the device's own sector size is.
inline constexpr std::uint64_t kSectorBytes = 512;

struct Sectors {
  std::uint64_t count = 0;

  constexpr std::uint64_t bytes() const { return count * kSectorBytes; }
  // Rounds down.
  static constexpr Sectors of_bytes(std::uint64_t bytes) { return {bytes / kSectorBytes}; }
  constexpr auto operator<=>(const Sectors&) const = default;
};

// An index or a number of pool blocks; how large one is, is the pool's to say.
struct PoolBlocks {
  std::uint64_t count = 0;

  constexpr std::uint64_t bytes(Sectors block_size) const { return count * block_size.bytes(); }
  constexpr auto operator<=>(const PoolBlocks&) const = default;
};

// [begin, end) in bytes of a volume's address space.
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  constexpr std::uint64_t length() const { return end - begin; }
  constexpr bool operator==(const ByteRange&) const = default;
};

}  // namespace convoy
