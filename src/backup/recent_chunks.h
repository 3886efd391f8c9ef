// Chunks that this backup has stored not long ago, so that equal ones are stored once.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "backup/tree_node.h"
#include "base/limits.h"

namespace convoy {

// A table in which each digest has one place, and drives out who was there before: of fixed size
// whatever the volume's is, and enough for what repeats nearby. Forgetting costs space in the
// store, never correctness. Not thread-safe.
class RecentChunks {
 public:
  // For a backup that reads so many chunks.
  explicit RecentChunks(std::uint64_t chunks)
      : places_(std::bit_ceil(std::clamp<std::uint64_t>(chunks, 1, kRecentChunks))) {}

  // Where the chunk of this digest is; null if it is not known (any more). Valid until the next
  // remember().
  const Reference* find(const Digest& digest) const {
    const auto& place = places_[index(digest)];
    return place && place->digest == digest ? &*place : nullptr;
  }

  void remember(const Reference& reference) { places_[index(reference.digest)] = reference; }

 private:
  // A digest's bytes are as good as random.
  std::size_t index(const Digest& digest) const {
    std::uint64_t bits = 0;
    std::memcpy(&bits, digest.data(), sizeof bits);
    return bits % places_.size();
  }

  std::vector<std::optional<Reference>> places_;
};

}  // namespace convoy
