#include "backup/backup_walk.h"

#include <algorithm>
#include <utility>

#include "backup/progress.h"
#include "base/error.h"

namespace convoy {

namespace {

// Makes `next` a part of the last of them, if it is its neighbour.
void append(std::vector<Damage>& damages, Damage next) {
  if (!damages.empty() && damages.back().range.end == next.range.begin &&
      damages.back().reference.pack == next.reference.pack) {
    damages.back().range.end = next.range.end;
  } else {
    damages.push_back(std::move(next));
  }
}

}  // namespace

void DamageList::add(Damage damage) {
  const std::lock_guard lock(mutex_);
  append(damages_, std::move(damage));
}

std::vector<Damage> DamageList::take() {
  const std::lock_guard lock(mutex_);
  std::ranges::sort(damages_, {}, [](const Damage& damage) { return damage.range.begin; });
  std::vector<Damage> merged;
  for (Damage& damage : damages_) append(merged, std::move(damage));
  damages_.clear();
  return merged;
}

void read_despite_damage(PackReader& packs, std::span<const PackReader::Item> items,
                         std::size_t max_length, const PackReader::Visit& visit,
                         const DamageSink& damaged) {
  try {
    return packs.read(items, max_length, visit);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt || !damaged) throw;
  }
  // Which of them? One by one; what was visited is visited again.
  for (std::size_t i = 0; i < items.size(); ++i) {
    try {
      packs.read(items.subspan(i, 1), max_length,
                 [&](std::size_t, std::span<const std::byte> plain) { visit(i, plain); });
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt) throw;
      damaged(
          {.range = items[i].range, .reference = items[i].reference, .reason = error.message()});
    }
  }
}

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
  read_despite_damage(
      parts_.nodes, unknown, kMaxNodeSize,
      [&](std::size_t index, std::span<const std::byte> bytes) {
        const std::uint64_t first = unknown[index].range.begin / shape_.chunk_size();
        children[index] = items_of(decode_node(bytes, level), first, span);
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

std::vector<std::vector<PackReader::Item>> pieces_of(std::span<const PackReader::Item> chunks,
                                                     std::uint32_t chunk_size) {
  const std::uint64_t piece_size = kChunksPerPiece * chunk_size;
  std::vector<std::vector<PackReader::Item>> pieces;
  std::uint64_t last = 0;
  for (const PackReader::Item& chunk : chunks) {
    const std::uint64_t number = chunk.range.begin / piece_size;
    if (pieces.empty() || number != last) pieces.emplace_back();
    pieces.back().push_back(chunk);
    last = number;
  }
  return pieces;
}

void check_chunk_length(const PackReader::Item& item, std::span<const std::byte> plain) {
  if (plain.size() == item.range.length()) return;
  throw Error(ErrorKind::kCorrupt, "the chunk has {} bytes instead of {}", plain.size(),
              item.range.length());
}

}  // namespace convoy
