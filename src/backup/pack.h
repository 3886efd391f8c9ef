// The end of a pack: a footer that says where each slot is, and a trailer that says where the
// footer is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backup/frame.h"
#include "base/bytes.h"
#include "base/digest.h"

namespace convoy {

// An entry of the footer; the slot is its index. A length of zero marks a slot that was dropped
// when the pack was rewritten.
struct PackSlot {
  Le32 offset;    // of the frame in the pack
  Le32 length;    // of the frame with its header
  Digest digest;  // of the plain bytes
};
static_assert(sizeof(PackSlot) == 40);

// The last bytes of a pack.
struct PackTrailer {
  Le32 footer_offset;
  Le32 footer_length;
  std::array<Le32, 2> reserved;
  Digest checksum;  // of everything from the footer's begin to here
  std::array<char, 8> magic;
};
static_assert(sizeof(PackTrailer) == 56);

// What footer and trailer add to a pack of so many slots, at most.
constexpr std::uint64_t footer_bound(std::uint64_t slots) {
  return sizeof(FrameHeader) + slots * sizeof(PackSlot) + sizeof(PackTrailer);
}

// Appends footer and trailer to the frames of a pack.
void append_footer(std::span<const PackSlot> slots, FrameEncoder& encoder,
                   std::vector<std::byte>& pack);

// The trailer in the last bytes of a pack that is `pack_size` bytes long. Throws kCorrupt if it is
// none, or says what can't be.
PackTrailer parse_trailer(std::span<const std::byte> bytes, std::uint64_t pack_size);

// The slots that a footer lists. `footer` is the pack from the footer's begin to its end, trailer
// included. Throws kCorrupt.
std::vector<PackSlot> parse_footer(std::span<const std::byte> footer, const PackTrailer& trailer,
                                   FrameDecoder& decoder);

}  // namespace convoy
