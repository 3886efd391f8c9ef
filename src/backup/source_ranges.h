// What a backup is told of its volume: ranges of bytes. What it does: ranges of chunks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "backup/tree_node.h"
#include "base/units.h"

namespace convoy {

enum class SourceKind {
  kRead,  // may differ from the parent
  kZero,  // is not mapped, so it is zero without a look at it
};

struct SourceRange {
  ByteRange bytes;
  SourceKind kind = SourceKind::kRead;
};

// Chunks [first, end).
struct ChunkRange {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
  SourceKind kind = SourceKind::kRead;

  bool operator==(const ChunkRange&) const = default;
};

// Ascending ranges of chunks that don't overlap.
class ChunkRanges {
 public:
  // The chunks that `ranges` touch. Those that a kZero range covers only partly are read. Throws
  // kInvalidArgument unless the ranges are not empty, ascend, don't overlap, and end within the
  // volume.
  ChunkRanges(std::span<const SourceRange> ranges, const TreeShape& shape);

  // Adds one chunk to be read, unless it is among them.
  void include(std::uint64_t chunk);

  const std::vector<ChunkRange>& all() const { return ranges_; }
  // Those that have a chunk in [first, end).
  std::span<const ChunkRange> overlapping(std::uint64_t first, std::uint64_t end) const;
  // True if one kZero range covers all of [first, end).
  bool zero(std::uint64_t first, std::uint64_t end) const;
  // How many bytes of the volume are to be read.
  std::uint64_t bytes_to_read(const TreeShape& shape) const;

 private:
  void add(ChunkRange range);

  std::vector<ChunkRange> ranges_;
};

}  // namespace convoy
