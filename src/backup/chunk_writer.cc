#include "backup/chunk_writer.h"

#include <algorithm>

#include "backup/device_io.h"
#include "base/bytes.h"

namespace convoy {

ChunkWriter::ChunkWriter(int device_fd, const TreeShape& shape, std::uint64_t bytes_to_read,
                         PackWriter& packs)
    : device_fd_(device_fd),
      shape_(shape),
      packs_(packs),
      buffer_(kTreeFanout * shape.chunk_size()),
      recent_(bytes_to_read / shape.chunk_size() + 1) {}

void ChunkWriter::update_leaf(std::uint64_t first, std::span<const ChunkRange> ranges,
                              TreeNode& leaf) {
  for (const ChunkRange& range : ranges) {
    const std::uint64_t begin = std::max(range.first, first);
    const std::uint64_t end = std::min(range.end, first + kTreeFanout);
    const std::span entries = std::span(leaf.entries).subspan(begin - first, end - begin);
    if (range.kind == SourceKind::kZero) {
      std::ranges::fill(entries, std::nullopt);
    } else {
      read_chunks(begin, end, entries);
    }
  }
}

void ChunkWriter::read_chunks(std::uint64_t first, std::uint64_t end,
                              std::span<std::optional<Reference>> out) {
  const ByteRange range = shape_.bytes_of(first, end);
  read_device(device_fd_, buffer_, range.begin, range.length());
  statistics_.bytes_read += range.length();
  std::span<const std::byte> rest = buffer_.bytes().first(range.length());
  for (auto& entry : out) {
    const std::size_t length = std::min<std::size_t>(rest.size(), shape_.chunk_size());
    entry = store(rest.first(length), entry);
    rest = rest.subspan(length);
  }
}

std::optional<Reference> ChunkWriter::store(std::span<const std::byte> plain,
                                            const std::optional<Reference>& old) {
  if (all_zero(plain)) return std::nullopt;
  const Digest digest = sha256(plain);
  if (old && old->digest == digest) {
    ++statistics_.chunks_reused;
    return old;
  }
  if (const Reference* const known = recent_.find(digest)) {
    ++statistics_.chunks_reused;
    return *known;
  }
  const Reference stored = packs_.add(plain, digest);
  recent_.remember(stored);
  ++statistics_.chunks_stored;
  return stored;
}

}  // namespace convoy
