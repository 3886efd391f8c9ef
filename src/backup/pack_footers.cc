#include "backup/pack_footers.h"

#include <algorithm>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Slots of remembered footers, 40 MiB of them. In chunks of 16 KiB that are compressed to a half, a
// pack has 2000.
constexpr std::size_t kMaxFooterSlots = 1U << 20U;

// Read with the trailer, since the footer of an ordinary pack is in it: one request instead of two.
constexpr std::uint64_t kTailSize = 128 * kKiB;

// Nothing if there is no such object. Throws kCorrupt if it ends before.
std::optional<std::vector<std::byte>> read_part(ObjectStore& objects, const std::string& key,
                                                std::uint64_t offset, std::uint64_t length) {
  std::vector<std::byte> part(length);
  try {
    const std::size_t count = objects.get_range(key, offset, part);
    if (count == part.size()) return part;
    throw Error(ErrorKind::kCorrupt, "the pack ends at byte {}, before byte {}", offset + count,
                offset + part.size());
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    return std::nullopt;
  }
}

}  // namespace

PackFooters::Footer PackFooters::footer_of(const PackName& pack) {
  std::unique_lock lock(mutex_);
  if (const auto broken = broken_.find(pack); broken != broken_.end()) throw Error(broken->second);
  if (const auto known = position_of_.find(pack); known != position_of_.end()) {
    known_.splice(known_.begin(), known_, known->second);
    const std::shared_future<Footer> footer = known->second->footer;
    lock.unlock();
    return wait_for(footer);
  }
  std::promise<Footer> promise;
  const std::shared_future<Footer> footer = promise.get_future().share();
  known_.push_front({.pack = pack, .footer = footer});
  position_of_[pack] = known_.begin();
  lock.unlock();
  Footer found;
  try {
    found = read(pack);
    promise.set_value(found);
  } catch (const Error& error) {
    promise.set_exception(std::current_exception());
    lock.lock();
    if (error.kind() == ErrorKind::kCorrupt) broken_.emplace(pack, error);
    lock.unlock();
  } catch (...) {
    promise.set_exception(std::current_exception());
  }
  lock.lock();
  const Position position = position_of_.at(pack);
  if (found) {
    position->size = found->slots.size() + 1;
    total_size_ += position->size;
    forget_oldest();
  } else {
    position_of_.erase(pack);
    known_.erase(position);
  }
  lock.unlock();
  return wait_for(footer);
}

// The threads that wait for one footer are thrown one exception, to which each would add what it
// wanted of the pack.
PackFooters::Footer PackFooters::wait_for(const std::shared_future<Footer>& footer) {
  try {
    return footer.get();
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

void PackFooters::forget(const PackName& pack, const Footer& footer) {
  const std::lock_guard lock(mutex_);
  const auto found = position_of_.find(pack);
  if (found == position_of_.end() || found->second->size == 0) return;
  if (wait_for(found->second->footer) != footer) return;  // another reader was faster
  total_size_ -= found->second->size;
  known_.erase(found->second);
  position_of_.erase(found);
}

PackFooters::Footer PackFooters::read(const PackName& pack) {
  const auto use = packs_.find(pack);
  if (use == packs_.end())
    throw Error(ErrorKind::kCorrupt, "the backup's JSON does not list this pack");
  Place place{.key = pack_key(lineage_, pack), .size = use->second.size};
  if (const auto known = rewritten(pack, "")) place = *known;
  // Once more for each time that it is rewritten while it is looked for.
  while (true) {
    if (auto footer = read_at(place)) return std::make_shared<const PackFooter>(std::move(*footer));
    auto next = rewritten(pack, place.key);
    if (!next) throw Error(ErrorKind::kCorrupt, "the pack is missing");
    place = std::move(*next);
  }
}

// Nothing if it is gone.
std::optional<PackFooter> PackFooters::read_at(const Place& place) {
  if (place.size > kMaxPackSize) throw Error(ErrorKind::kCorrupt, "the pack is too large");
  const std::uint64_t tail_size = std::min(place.size, kTailSize);
  auto tail = read_part(objects_, place.key, place.size - tail_size, tail_size);
  if (!tail) return std::nullopt;
  const std::size_t trailer_size = std::min(tail->size(), sizeof(PackTrailer));
  const PackTrailer trailer =
      parse_trailer(std::span<const std::byte>(*tail).last(trailer_size), place.size);
  const std::uint64_t length = trailer.footer_length + sizeof trailer;
  std::unique_lock large(large_mutex_, std::defer_lock);
  if (length > tail->size()) {
    large.lock();
    tail = read_part(objects_, place.key, trailer.footer_offset, length);
    if (!tail) return std::nullopt;
  }
  FrameDecoder decoder;
  return PackFooter{place.key,
                    parse_footer(std::span<const std::byte>(*tail).last(length), trailer, decoder)};
}

// Where the pack is if it was rewritten, as far as is known. `but_not`, if it is not empty, is
// gone: they are listed anew, unless somebody has done so since.
std::optional<PackFooters::Place> PackFooters::rewritten(const PackName& pack,
                                                         const std::string& but_not) {
  const std::lock_guard lock(rewritten_mutex_);
  const auto is_news = [&] {
    const auto found = rewritten_.find(pack);
    return found != rewritten_.end() && found->second.key != but_not;
  };
  if (!but_not.empty() && !is_news()) {
    list_rewritten();
    if (!is_news()) return std::nullopt;
  }
  const auto found = rewritten_.find(pack);
  return found == rewritten_.end() ? std::nullopt : std::optional(found->second);
}

void PackFooters::list_rewritten() {
  objects_.list(prefix_of(lineage_, LineagePart::kRewrittenPacks), [&](const ObjectInfo& info) {
    const auto object = parse_pack_key(info.key);
    // In ascending order: the last one of a pack stays.
    if (object && object->rewriting && packs_.contains(object->pack))
      rewritten_[object->pack] = {.key = info.key, .size = info.size};
  });
}

}  // namespace convoy
