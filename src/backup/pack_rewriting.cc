#include "backup/pack_rewriting.h"

#include <span>
#include <vector>

#include "backup/pack.h"
#include "base/error.h"
#include "base/limits.h"

namespace convoy {

LiveShare live_share(const PackFooter& footer, const IsLive& is_live) {
  LiveShare share;
  for (std::uint32_t slot = 0; slot < footer.slots.size(); ++slot) {
    const std::uint64_t length = footer.slots[slot].length;
    share.all += length;
    if (is_live(slot)) share.live += length;
  }
  return share;
}

std::uint64_t rewrite_pack(ObjectStore& objects, const Uuid& lineage, const PackName& pack,
                           const PackFooter& footer, const IsLive& is_live) {
  const std::vector<std::byte> old = objects.get(footer.key, kMaxPackSize);
  std::vector<std::byte> bytes;
  std::vector<PackSlot> slots(footer.slots.size());
  for (std::uint32_t slot = 0; slot < slots.size(); ++slot) {
    const PackSlot& before = footer.slots[slot];
    if (before.length == 0 || !is_live(slot)) continue;
    if (std::uint64_t{before.offset} + std::uint64_t{before.length} > old.size())
      throw Error(ErrorKind::kCorrupt, "{}: ends within slot {}", footer.key, slot);
    slots[slot] = {.offset = static_cast<std::uint32_t>(bytes.size()),
                   .length = before.length,
                   .digest = before.digest};
    const auto frame = std::span(old).subspan(before.offset, before.length);
    bytes.insert(bytes.end(), frame.begin(), frame.end());
  }
  FrameEncoder encoder;
  append_footer(slots, encoder, bytes);
  // A name that was never there: two who rewrite one pack at once don't disturb each other's
  // readers, and each leaves all that is needed.
  objects.put(rewritten_pack_key(lineage, pack, Uuid::generate()), bytes);
  return bytes.size();
}

}  // namespace convoy
