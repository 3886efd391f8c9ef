#include "backup/pack_reader.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Slots of remembered footers, 40 MiB of them. In chunks of 64 KiB that are compressed to a half, a
// pack has 500.
constexpr std::size_t kMaxFooterSlots = 1U << 20U;

// Read with the trailer, since the footer of an ordinary pack is in it: one request instead of two.
constexpr std::uint64_t kTailSize = 64 * kKiB;

// A run is at most as long as the chunks of a leaf and their headers; a gap in it is cheaper to
// read than another request.
constexpr std::uint64_t kMaxRun = 9 * kMiB;
constexpr std::uint64_t kMaxGap = 64 * kKiB;

std::uint64_t end_of(const PackSlot& slot) {
  return std::uint64_t{slot.offset} + std::uint64_t{slot.length};
}

// Fills `out` from the pack. A pack that ends before, or is gone, is damage to the backup.
void read_pack(ObjectStore& objects, const std::string& key, std::uint64_t offset,
               std::span<std::byte> out) {
  std::size_t count = 0;
  try {
    count = objects.get_range(key, offset, out);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    throw Error(ErrorKind::kCorrupt, "the pack is missing");
  }
  if (count != out.size()) {
    throw Error(ErrorKind::kCorrupt, "the pack ends at byte {}, before byte {}", offset + count,
                offset + out.size());
  }
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
    const auto plain = about(item, [&] {
      const auto frame =
          std::span<const std::byte>(run_).subspan(placed.slot.offset - begin, placed.slot.length);
      const auto decoded = decoder_.decode(frame, max_length);
      if (sha256(decoded) != item.reference.digest) {
        throw Error(ErrorKind::kCorrupt, "slot {} does not hold the bytes that were stored there",
                    item.reference.slot);
      }
      return decoded;
    });
    visit(placed.index, plain);
  }
}

PackSlot PackReader::place(const Reference& reference) {
  const Slots& slots = slots_of(reference.pack);
  if (reference.slot >= slots.size()) {
    throw Error(ErrorKind::kCorrupt, "the pack has no slot {}", reference.slot);
  }
  const PackSlot& slot = slots[reference.slot];
  if (slot.length == 0 || slot.digest != reference.digest) {
    throw Error(ErrorKind::kCorrupt, "slot {} is that of something else", reference.slot);
  }
  return slot;
}

const PackReader::Slots& PackReader::slots_of(const PackName& pack) {
  const auto known = footer_of_.find(pack);
  if (known != footer_of_.end()) {
    footers_.splice(footers_.begin(), footers_, known->second);
    return footers_.front().second;
  }
  const auto use = record_.packs.find(pack);
  if (use == record_.packs.end()) {
    throw Error(ErrorKind::kCorrupt, "the backup's JSON does not list this pack");
  }
  footers_.emplace_front(pack, read_footer(pack, use->second.size));
  footer_of_[pack] = footers_.begin();
  footer_slots_ += footers_.front().second.size();
  while (footer_slots_ > kMaxFooterSlots && footers_.size() > 1) {
    footer_slots_ -= footers_.back().second.size();
    footer_of_.erase(footers_.back().first);
    footers_.pop_back();
  }
  return footers_.front().second;
}

PackReader::Slots PackReader::read_footer(const PackName& pack, std::uint64_t size) {
  const std::string key = pack_key(record_.info.source.lineage, pack);
  std::vector<std::byte> tail(std::min(size, kTailSize));
  read_pack(objects_, key, size - tail.size(), tail);
  const std::size_t trailer_size = std::min(tail.size(), sizeof(PackTrailer));
  const PackTrailer trailer =
      parse_trailer(std::span<const std::byte>(tail).last(trailer_size), size);
  const std::uint64_t length = trailer.footer_length + sizeof trailer;
  if (length > tail.size()) {
    tail.resize(length);
    read_pack(objects_, key, trailer.footer_offset, tail);
  }
  return parse_footer(std::span<const std::byte>(tail).last(length), trailer, decoder_);
}

}  // namespace convoy
