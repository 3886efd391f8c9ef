#include "backup/source_ranges.h"

#include <algorithm>

#include "base/error.h"

namespace convoy {

ChunkRanges::ChunkRanges(std::span<const SourceRange> ranges, const TreeShape& shape) {
  const std::uint64_t chunk = shape.chunk_size();
  std::uint64_t previous_end = 0;
  for (const auto& [bytes, kind] : ranges) {
    if (bytes.begin >= bytes.end || bytes.begin < previous_end || bytes.end > shape.size()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "the range from {} to {} is empty, out of order or beyond the volume's {} bytes",
                  bytes.begin, bytes.end, shape.size());
    }
    previous_end = bytes.end;
    const std::uint64_t first = bytes.begin / chunk;
    const std::uint64_t end = (bytes.end - 1) / chunk + 1;
    if (kind == SourceKind::kRead) {
      add({first, end, SourceKind::kRead});
      continue;
    }
    // The volume's end ends the last chunk, however short it is.
    const bool to_the_end = bytes.end == shape.size() || bytes.end % chunk == 0;
    const std::uint64_t whole_first = bytes.begin % chunk == 0 ? first : first + 1;
    const std::uint64_t whole_end = to_the_end ? end : end - 1;
    add({first, std::min(whole_first, end), SourceKind::kRead});
    add({whole_first, whole_end, SourceKind::kZero});
    add({std::max(whole_end, whole_first), end, SourceKind::kRead});
  }
}

void ChunkRanges::add(ChunkRange range) {
  // Two ranges meet in one chunk only if both cover a part of it, so that both are to be read
  // there.
  if (!ranges_.empty()) range.first = std::max(range.first, ranges_.back().end);
  if (range.first >= range.end) return;
  if (!ranges_.empty() && ranges_.back().end == range.first && ranges_.back().kind == range.kind) {
    ranges_.back().end = range.end;
  } else {
    ranges_.push_back(range);
  }
}

void ChunkRanges::include(std::uint64_t chunk) {
  if (!overlapping(chunk, chunk + 1).empty()) return;
  const auto after = std::ranges::upper_bound(ranges_, chunk, {}, &ChunkRange::first);
  ranges_.insert(after, {chunk, chunk + 1, SourceKind::kRead});
}

std::span<const ChunkRange> ChunkRanges::overlapping(std::uint64_t first, std::uint64_t end) const {
  const auto begin = std::ranges::upper_bound(ranges_, first, {}, &ChunkRange::end);
  const auto last = std::ranges::lower_bound(begin, ranges_.end(), end, {}, &ChunkRange::first);
  return {begin, last};
}

bool ChunkRanges::zero(std::uint64_t first, std::uint64_t end) const {
  const auto found = overlapping(first, end);
  return found.size() == 1 && found[0].kind == SourceKind::kZero && found[0].first <= first &&
         found[0].end >= end;
}

std::uint64_t ChunkRanges::bytes_to_read(const TreeShape& shape) const {
  std::uint64_t bytes = 0;
  for (const ChunkRange& range : ranges_) {
    if (range.kind == SourceKind::kRead) bytes += shape.bytes_of(range.first, range.end).length();
  }
  return bytes;
}

}  // namespace convoy
