#include "backup/backup_walk.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "backup/progress.h"
#include "base/error.h"

namespace convoy {
namespace {

// Chunks that are put into order together: 20 MiB of memory, and 4 GiB of a volume in chunks of 16
// KiB.
constexpr std::size_t kChunksInOrder = 1U << 18U;

}  // namespace

void BackupWalk::run(const OnLeaf& on_leaf) {
  if (!parts_.record.root) return;
  const PackReader::Item root{.reference = *parts_.record.root, .range = {0, shape_.size()}};
  visit_nodes(shape_.height() - 1, std::span(&root, 1), on_leaf);
}

void BackupWalk::visit_nodes(std::uint32_t level, std::span<const PackReader::Item> items,
                             const OnLeaf& on_leaf) {
  check_stop(parts_.stop, parts_.work);
  std::vector<PackReader::Item> unknown;
  for (const PackReader::Item& item : items) {
    if (!parts_.known || !parts_.known(item.reference)) unknown.push_back(item);
  }
  const std::uint64_t span = level == 0 ? 1 : chunks_under(level - 1);
  std::vector<std::vector<PackReader::Item>> children(unknown.size());
  parts_.nodes.read(
      level, unknown,
      [&](std::size_t index, const TreeNode& node) {
        const std::uint64_t first = unknown[index].range.begin / shape_.chunk_size();
        children[index] = items_of(node, first, span);
      },
      parts_.damaged);
  for (const auto& under : children) {
    if (level > 0) {
      visit_nodes(level - 1, under, on_leaf);
    } else if (!under.empty()) {
      on_leaf(under);
    }
  }
}

// The entries of a node, each of which stands for `span` chunks.
std::vector<PackReader::Item> BackupWalk::items_of(const TreeNode& node, std::uint64_t first,
                                                   std::uint64_t span) const {
  std::vector<PackReader::Item> items;
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    if (!node.entries[place]) continue;
    const ByteRange range = shape_.bytes_of(first + place * span, first + (place + 1) * span);
    if (range.length() == 0) {
      throw Error(ErrorKind::kCorrupt, "backup {}: its tree reaches beyond the volume's end",
                  parts_.record.info.uuid.to_string());
    }
    items.push_back({.reference = *node.entries[place], .range = range});
  }
  return items;
}

void PackOrder::add(std::span<const PackReader::Item> chunks) {
  chunks_.insert(chunks_.end(), chunks.begin(), chunks.end());
  if (chunks_.size() >= kChunksInOrder) flush();
}

void PackOrder::flush() {
  std::ranges::sort(chunks_, {}, [](const PackReader::Item& chunk) {
    return std::tuple(chunk.reference.pack, chunk.reference.slot, chunk.range.begin);
  });
  Piece piece;
  const auto hand_over = [&] {
    if (!piece.empty()) on_piece_(std::move(piece));
    piece = {};
  };
  for (const PackReader::Item& chunk : chunks_) {
    if (piece.size() == chunks_per_piece_ ||
        (!piece.empty() && piece.front().reference.pack != chunk.reference.pack))
      hand_over();
    piece.push_back(chunk);
  }
  hand_over();
  chunks_.clear();
}

void check_chunk_length(const PackReader::Item& item, std::span<const std::byte> plain) {
  if (plain.size() == item.range.length()) return;
  throw Error(ErrorKind::kCorrupt, "the chunk has {} bytes instead of {}", plain.size(),
              item.range.length());
}

}  // namespace convoy
