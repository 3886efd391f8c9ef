#include "backup/pack_reader.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// A run is at most as long as the chunks of a leaf and their headers; a gap in it is cheaper to
// read than another request.
constexpr std::uint64_t kMaxRun = 9 * kMiB;
constexpr std::uint64_t kMaxGap = 64 * kKiB;

std::uint64_t end_of(const PackSlot& slot) {
  return std::uint64_t{slot.offset} + std::uint64_t{slot.length};
}

}  // namespace

template <typename Action>
auto PackReader::about(const Item& item, Action&& action) const {
  try {
    return action();
  } catch (Error& error) {
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

  // Slots stand in a pack in ascending order, so neighbours here are neighbours there.
  std::vector<Placed> run;
  const auto finish_run = [&] {
    if (!run.empty()) read_run(run, items, max_length, visit);
    run.clear();
  };
  for (const std::size_t index : order) {
    const Reference& reference = items[index].reference;
    const PackSlot slot = about(items[index], [&] { return place(reference); });
    const bool continues = !run.empty() &&
                           items[run.back().index].reference.pack == reference.pack &&
                           slot.offset >= run.front().slot.offset &&
                           slot.offset <= end_of(run.back().slot) + kMaxGap &&
                           end_of(slot) <= run.front().slot.offset + kMaxRun;
    if (!continues) finish_run();
    run.push_back({.index = index, .slot = slot});
  }
  finish_run();
}

void PackReader::check_place(const Item& item) {
  about(item, [&] { place(item.reference); });
}

void PackReader::read_run(std::span<const Placed> run, std::span<const Item> items,
                          std::size_t max_length, const Visit& visit) {
  const Item& first = items[run.front().index];
  const std::uint64_t begin = run.front().slot.offset;
  std::uint64_t end = begin;
  for (const Placed& placed : run) end = std::max(end, end_of(placed.slot));
  run_.resize(end - begin);
  const std::string key = pack_key(record_.info.source.lineage, first.reference.pack);
  about(first, [&] { read_pack(objects_, key, begin, run_); });

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
}

PackSlot PackReader::place(const Reference& reference) {
  const PackFooters::Slots slots = footers_.slots_of(reference.pack);
  if (reference.slot >= slots->size()) {
    throw Error(ErrorKind::kCorrupt, "the pack has no slot {}", reference.slot);
  }
  const PackSlot& slot = (*slots)[reference.slot];
  if (slot.length == 0 || slot.digest != reference.digest) {
    throw Error(ErrorKind::kCorrupt, "slot {} is that of something else", reference.slot);
  }
  return slot;
}

}  // namespace convoy
