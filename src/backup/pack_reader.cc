#include "backup/pack_reader.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Each thread has a run in memory; a gap in it is cheaper to read than another request.
constexpr std::uint64_t kMaxRun = 5 * kMiB;
constexpr std::uint64_t kMaxGap = 256 * kKiB;

std::uint64_t end_of(const PackSlot& slot) {
  return std::uint64_t{slot.offset} + std::uint64_t{slot.length};
}

}  // namespace

template <typename Action>
auto PackReader::about(const Item& item, Action&& action) const {
  try {
    return action();
  } catch (Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;  // by `visit`, or the store
    error.add_context(fmt::format("backup {}, bytes {} to {} of the volume, {}",
                                  record_.info.uuid.to_string(), item.range.begin, item.range.end,
                                  pack_key(record_.info.source.lineage, item.reference.pack)));
    throw;
  }
}

void PackReader::read(std::span<const Item> items, std::size_t max_length, const Visit& visit) {
  std::vector<std::size_t> order(items.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto where = [&](std::size_t i) {
    return std::pair(items[i].reference.pack, items[i].reference.slot);
  };
  std::ranges::sort(order, {}, where);

  for (std::span<const std::size_t> rest = order; !rest.empty();) {
    const PackName& pack = items[rest.front()].reference.pack;
    const auto end = std::ranges::find_if(
        rest, [&](std::size_t index) { return items[index].reference.pack != pack; });
    const auto count = static_cast<std::size_t>(end - rest.begin());
    read_from_pack(rest.first(count), items, max_length, visit);
    rest = rest.subspan(count);
  }
}

// Begins anew with what is left whenever the pack has been rewritten and so is elsewhere.
void PackReader::read_from_pack(std::span<const std::size_t> indices, std::span<const Item> items,
                                std::size_t max_length, const Visit& visit) {
  const PackName& pack = items[indices.front()].reference.pack;
  while (!indices.empty()) {
    const PackFooters::Footer footer =
        about(items[indices.front()], [&] { return footers_.footer_of(pack); });
    // Slots stand in a pack in ascending order, so neighbours here are neighbours there.
    std::vector<Placed> run;
    for (const std::size_t index : indices) {
      const PackSlot slot =
          about(items[index], [&] { return place(*footer, items[index].reference, max_length); });
      if (!run.empty() && (slot.offset < run.front().slot.offset ||
                           slot.offset > end_of(run.back().slot) + kMaxGap ||
                           end_of(slot) > run.front().slot.offset + kMaxRun))
        break;
      run.push_back({.index = index, .slot = slot});
    }
    if (read_run(footer->key, run, items, max_length, visit))
      indices = indices.subspan(run.size());
    else
      footers_.forget(pack, footer);
  }
}

void PackReader::check_place(const Item& item) {
  about(item, [&] {
    place(*footers_.footer_of(item.reference.pack), item.reference, record_.chunk_size);
  });
}

// False if the object is gone.
bool PackReader::read_run(const std::string& key, std::span<const Placed> run,
                          std::span<const Item> items, std::size_t max_length, const Visit& visit) {
  const std::uint64_t begin = run.front().slot.offset;
  std::uint64_t end = begin;
  for (const Placed& placed : run) end = std::max(end, end_of(placed.slot));
  run_.resize(end - begin);
  std::size_t count = 0;
  try {
    count = objects_.get_range(key, begin, run_);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    return false;
  }
  about(items[run.front().index], [&] {
    if (count != run_.size())
      throw Error(ErrorKind::kCorrupt, "the pack ends at byte {}, before byte {}", begin + count,
                  end);
  });

  for (const Placed& placed : run) {
    const Item& item = items[placed.index];
    about(item, [&] {
      const auto frame =
          std::span<const std::byte>(run_).subspan(placed.slot.offset - begin, placed.slot.length);
      const auto decoded = decoder_.decode(frame, max_length);
      if (sha256(decoded) != item.reference.digest) {
        throw Error(ErrorKind::kCorrupt, "slot {} does not hold the bytes that were stored there",
                    item.reference.slot);
      }
      visit(placed.index, decoded);
    });
  }
  return true;
}

PackSlot PackReader::place(const PackFooter& footer, const Reference& reference,
                           std::size_t max_length) {
  if (reference.slot >= footer.slots.size())
    throw Error(ErrorKind::kCorrupt, "the pack has no slot {}", reference.slot);
  const PackSlot& slot = footer.slots[reference.slot];
  if (slot.length == 0 || slot.digest != reference.digest)
    throw Error(ErrorKind::kCorrupt, "slot {} is that of something else", reference.slot);
  if (slot.length > sizeof(FrameHeader) + max_length)  // frames are no longer than what they hold
    throw Error(ErrorKind::kCorrupt, "slot {} is too long", reference.slot);
  return slot;
}

}  // namespace convoy
