#include "backup/pack_footers.h"

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Slots of remembered footers, 40 MiB of them. In chunks of 64 KiB that are compressed to a half, a
// pack has 500.
constexpr std::size_t kMaxFooterSlots = 1U << 20U;

// Read with the trailer, since the footer of an ordinary pack is in it: one request instead of two.
constexpr std::uint64_t kTailSize = 64 * kKiB;

}  // namespace

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

PackFooters::Slots PackFooters::slots_of(const PackName& pack) {
  std::unique_lock lock(mutex_);
  if (const auto known = position_of_.find(pack); known != position_of_.end()) {
    known_.splice(known_.begin(), known_, known->second);
    const std::shared_future<Slots> slots = known->second->slots;
    lock.unlock();
    return wait_for(slots);
  }
  std::promise<Slots> promise;
  const std::shared_future<Slots> slots = promise.get_future().share();
  known_.push_front({.pack = pack, .slots = slots});
  position_of_[pack] = known_.begin();
  lock.unlock();
  Slots found;
  try {
    found = read(pack);
    promise.set_value(found);
  } catch (...) {
    promise.set_exception(std::current_exception());
  }
  lock.lock();
  const Position position = position_of_.at(pack);
  if (found) {
    position->size = found->size() + 1;
    total_size_ += position->size;
    forget_oldest();
  } else {
    position_of_.erase(pack);
    known_.erase(position);
  }
  lock.unlock();
  return wait_for(slots);
}

// The threads that wait for one footer are thrown one exception, to which each would add what it
// wanted of the pack.
PackFooters::Slots PackFooters::wait_for(const std::shared_future<Slots>& slots) {
  try {
    return slots.get();
  } catch (const Error& error) {
    throw Error(error);
  }
}

// One that is being read is among the newest.
void PackFooters::forget_oldest() {
  while (total_size_ > kMaxFooterSlots && known_.size() > 1 && known_.back().size > 0) {
    total_size_ -= known_.back().size;
    position_of_.erase(known_.back().pack);
    known_.pop_back();
  }
}

PackFooters::Slots PackFooters::read(const PackName& pack) {
  const auto use = record_.packs.find(pack);
  if (use == record_.packs.end()) {
    throw Error(ErrorKind::kCorrupt, "the backup's JSON does not list this pack");
  }
  const std::uint64_t size = use->second.size;
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
  FrameDecoder decoder;
  return std::make_shared<const std::vector<PackSlot>>(
      parse_footer(std::span<const std::byte>(tail).last(length), trailer, decoder));
}

}  // namespace convoy
