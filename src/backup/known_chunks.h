// Chunks that are stored already, so that equal ones are not stored again.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <optional>
#include <vector>

#include "backup/tree_node.h"
#include "base/limits.h"

namespace convoy {

// A table in which each digest has one bucket, of the last few that fell into it: of fixed size
// whatever the volume's is, and enough for what repeats nearby. With one place for each, two chunks
// of a repeated pattern that meet there would be stored again and again. Forgetting costs space in
// the store, never correctness. Not thread-safe.
class KnownChunks {
 public:
  // With room for so many chunks, but no more than kKnownChunks.
  explicit KnownChunks(std::uint64_t chunks)
      : buckets_(std::bit_ceil(std::clamp<std::uint64_t>(chunks, kPlaces, kKnownChunks)) /
                 kPlaces) {}

  // Where the chunk of this digest is; null if it is not known (any more). Valid until the next
  // remember().
  const Reference* find(const Digest& digest) const {
    for (const auto& place : buckets_[index(digest)]) {
      if (place && place->digest == digest) return &*place;
    }
    return nullptr;
  }

  // Forgets the oldest of its bucket.
  void remember(const Reference& reference) {
    Bucket& bucket = buckets_[index(reference.digest)];
    std::ranges::move_backward(bucket.begin(), std::prev(bucket.end()), bucket.end());
    bucket.front() = reference;
  }

 private:
  static constexpr std::size_t kPlaces = 8;
  using Bucket = std::array<std::optional<Reference>, kPlaces>;

  // A digest's bytes are as good as random.
  std::size_t index(const Digest& digest) const {
    std::uint64_t bits = 0;
    std::memcpy(&bits, digest.data(), sizeof bits);
    return bits % buckets_.size();
  }

  std::vector<Bucket> buckets_;
};

}  // namespace convoy
