#include "backup/pack.h"

#include <cstring>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

constexpr std::array<char, 8> kMagic = {'c', 'o', 'n', 'v', 'o', 'y', 'p', 'k'};

// The checksum does not cover itself and the magic behind it.
constexpr std::size_t kUnsummed = sizeof(Digest) + sizeof kMagic;

[[noreturn]] void refuse(const char* why) {
  throw Error(ErrorKind::kCorrupt, "the pack's footer is damaged: {}", why);
}

void check_slot(const PackSlot& slot, std::uint64_t frames_end) {
  if (slot.length == 0) return;
  if (slot.length < sizeof(FrameHeader) ||
      std::uint64_t{slot.offset} + std::uint64_t{slot.length} > frames_end) {
    refuse("a slot lies outside of the pack");
  }
}

}  // namespace

void append_footer(std::span<const PackSlot> slots, FrameEncoder& encoder,
                   std::vector<std::byte>& pack) {
  const std::size_t begin = pack.size();
  const std::uint32_t length = encoder.append(std::as_bytes(slots), pack);
  PackTrailer trailer{.footer_offset = static_cast<std::uint32_t>(begin),
                      .footer_length = length,
                      .reserved = {},
                      .checksum = {},
                      .magic = kMagic};
  const auto bytes = bytes_of(trailer);
  pack.insert(pack.end(), bytes.begin(), bytes.end());
  trailer.checksum = sha256(std::span(pack).subspan(begin, pack.size() - begin - kUnsummed));
  std::memcpy(pack.data() + pack.size() - sizeof trailer, &trailer, sizeof trailer);
}

PackTrailer parse_trailer(std::span<const std::byte> bytes, std::uint64_t pack_size) {
  PackTrailer trailer;
  if (bytes.size() != sizeof trailer) refuse("the pack is too short");
  std::memcpy(&trailer, bytes.data(), sizeof trailer);
  if (trailer.magic != kMagic) refuse("the pack does not end as one does");
  if (std::uint64_t{trailer.footer_offset} + std::uint64_t{trailer.footer_length} +
          sizeof trailer !=
      pack_size) {
    refuse("it does not end where the trailer begins");
  }
  return trailer;
}

std::vector<PackSlot> parse_footer(std::span<const std::byte> footer, const PackTrailer& trailer,
                                   FrameDecoder& decoder) {
  if (footer.size() != trailer.footer_length + sizeof trailer) refuse("its length is another one");
  if (sha256(footer.first(footer.size() - kUnsummed)) != trailer.checksum) {
    refuse("its checksum is wrong");
  }
  if (trailer.reserved[0] != 0 || trailer.reserved[1] != 0)
    refuse("a field that must be zero is not");
  const auto plain =
      decoder.decode(footer.first(trailer.footer_length), kMaxPackSlots * sizeof(PackSlot));
  if (plain.size() % sizeof(PackSlot) != 0) refuse("its last slot is cut off");
  std::vector<PackSlot> slots(plain.size() / sizeof(PackSlot));
  if (!plain.empty()) std::memcpy(slots.data(), plain.data(), plain.size());  // never of a null
  for (const PackSlot& slot : slots) check_slot(slot, trailer.footer_offset);
  return slots;
}

}  // namespace convoy
