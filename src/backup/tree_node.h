// The tree that maps a volume's chunks to slots of packs: its shape, and the bytes of its nodes.
//
// A node has kTreeFanout places. At level 0 (a leaf) they stand for neighbouring chunks, above for
// neighbouring nodes of the level below; an empty place is all zeros. A volume's tree has the least
// height that spans it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backup/layout.h"
#include "base/digest.h"
#include "base/limits.h"
#include "base/units.h"

namespace convoy {

// Where a chunk or node is, and the digest of its plain bytes.
struct Reference {
  PackName pack;
  std::uint32_t slot = 0;
  Digest digest = {};

  bool operator==(const Reference&) const = default;
};

struct TreeNode {
  std::array<std::optional<Reference>, kTreeFanout> entries;

  bool empty() const;
};

// The largest node: the header, every place taken, every reference in a pack of its own.
inline constexpr std::size_t kMaxNodeSize = 4 + kTreeFanout * (20 + 38);

// The bytes of a node. Equal nodes have equal bytes.
std::vector<std::byte> encode_node(const TreeNode& node, std::uint32_t level);

// Throws kCorrupt if the bytes are no node of this level.
TreeNode decode_node(std::span<const std::byte> bytes, std::uint32_t level);

// How a volume is divided into chunks and a tree. Chunks are counted from the volume's begin.
class TreeShape {
 public:
  // `size` in bytes, at least 1; `chunk_size` a power of two.
  TreeShape(std::uint64_t size, std::uint32_t chunk_size) : size_(size), chunk_size_(chunk_size) {}

  std::uint64_t size() const { return size_; }
  std::uint32_t chunk_size() const { return chunk_size_; }
  std::uint64_t chunk_count() const { return (size_ - 1) / chunk_size_ + 1; }
  // Levels of nodes, at least 1. The root's level is one less.
  std::uint32_t height() const;

  // The bytes of chunks [first, end), which may reach beyond the volume's end: it ends the range.
  ByteRange bytes_of(std::uint64_t first, std::uint64_t end) const;

 private:
  std::uint64_t size_;
  std::uint32_t chunk_size_;
};

// Chunks that a node of this level spans, at most kMaxTreeHeight - 1.
constexpr std::uint64_t chunks_under(std::uint32_t level) {
  std::uint64_t chunks = kTreeFanout;
  for (; level > 0; --level) chunks *= kTreeFanout;
  return chunks;
}

}  // namespace convoy
