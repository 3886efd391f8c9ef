#include "backup/restore_backup.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <fmt/format.h>

#include "backup/device_io.h"
#include "backup/pack_reader.h"
#include "backup/tree_node.h"
#include "base/error.h"
#include "sys/aligned_buffer.h"
#include "sys/file.h"

namespace convoy {
namespace {

// How much a restore will write: every reference to a data pack is one chunk.
std::uint64_t bytes_present(const BackupRecord& record) {
  std::uint64_t chunks = 0;
  for (const auto& [pack, use] : record.packs) {
    if (pack.kind == PackKind::kData) chunks += use.references;
  }
  return std::min(chunks * record.chunk_size, record.info.source.size);
}

class Restore {
 public:
  Restore(const Store& store, const BackupRecord& record, int device_fd,
          const ProgressSink& progress, std::stop_token stop)
      : record_(record),
        shape_(record.shape()),
        packs_(store.objects(), record),
        device_fd_(device_fd),
        buffer_(kTreeFanout * shape_.chunk_size()),
        sink_(progress),
        stop_(std::move(stop)) {
    progress_.bytes_total = bytes_present(record);
  }

  void run();

 private:
  std::vector<PackReader::Item> items_of(const TreeNode& node, std::uint64_t first,
                                         std::uint64_t span) const;
  void restore_node(std::uint32_t level, std::uint64_t first, const TreeNode& node);
  void restore_leaf(std::uint64_t first, const TreeNode& leaf);
  void write_present(std::uint64_t first, const TreeNode& leaf);
  void report() {
    if (sink_) sink_(progress_);
  }

  const BackupRecord& record_;
  const TreeShape shape_;
  PackReader packs_;
  const int device_fd_;
  AlignedBuffer buffer_;  // the chunks of one leaf, each at its place
  const ProgressSink& sink_;
  const std::stop_token stop_;
  Progress progress_;
};

void Restore::run() {
  report();
  if (record_.root) {
    const std::uint32_t top = shape_.height() - 1;
    const PackReader::Item root{.reference = *record_.root, .range = {0, shape_.size()}};
    TreeNode node;
    packs_.read(
        std::span(&root, 1), kMaxNodeSize,
        [&](std::size_t, std::span<const std::byte> bytes) { node = decode_node(bytes, top); });
    restore_node(top, 0, node);
  }
  fsync_file(device_fd_, "the restored device");
  progress_.bytes_done = progress_.bytes_total;
  report();
}

// The entries of a node, each of which stands for `span` chunks.
std::vector<PackReader::Item> Restore::items_of(const TreeNode& node, std::uint64_t first,
                                                std::uint64_t span) const {
  std::vector<PackReader::Item> items;
  for (std::size_t place = 0; place < kTreeFanout; ++place) {
    if (!node.entries[place]) continue;
    const ByteRange range = shape_.bytes_of(first + place * span, first + (place + 1) * span);
    if (range.length() == 0) {
      throw Error(ErrorKind::kCorrupt, "backup {}: its tree reaches beyond the volume's end",
                  record_.info.uuid.to_string());
    }
    items.push_back({.reference = *node.entries[place], .range = range});
  }
  return items;
}

void Restore::restore_node(std::uint32_t level, std::uint64_t first, const TreeNode& node) {
  check_stop(stop_, "restore");
  if (level == 0) return restore_leaf(first, node);
  const std::uint64_t span = chunks_under(level - 1);
  const std::vector<PackReader::Item> items = items_of(node, first, span);
  std::vector<TreeNode> children(items.size());
  packs_.read(items, kMaxNodeSize, [&](std::size_t index, std::span<const std::byte> bytes) {
    children[index] = decode_node(bytes, level - 1);
  });
  for (std::size_t i = 0; i < items.size(); ++i) {
    restore_node(level - 1, items[i].range.begin / shape_.chunk_size(), children[i]);
  }
}

void Restore::restore_leaf(std::uint64_t first, const TreeNode& leaf) {
  const std::vector<PackReader::Item> items = items_of(leaf, first, 1);
  const std::uint64_t begin = first * shape_.chunk_size();
  packs_.read(items, shape_.chunk_size(), [&](std::size_t index, std::span<const std::byte> plain) {
    const ByteRange& range = items[index].range;
    if (plain.size() != range.length()) {
      throw Error(ErrorKind::kCorrupt, "the chunk has {} bytes instead of {}", plain.size(),
                  range.length());
    }
    std::memcpy(buffer_.bytes().data() + (range.begin - begin), plain.data(), plain.size());
  });
  write_present(first, leaf);
  for (const PackReader::Item& item : items) progress_.bytes_done += item.range.length();
  report();
}

// Writes neighbours in one go.
void Restore::write_present(std::uint64_t first, const TreeNode& leaf) {
  const auto present = [&](std::size_t place) { return leaf.entries[place].has_value(); };
  const std::uint64_t begin = first * shape_.chunk_size();
  std::size_t place = 0;
  while (place < kTreeFanout) {
    std::size_t end = place;
    while (end < kTreeFanout && present(end)) ++end;
    if (end > place) {
      const ByteRange range = shape_.bytes_of(first + place, first + end);
      write_device(device_fd_, buffer_.bytes().subspan(range.begin - begin, range.length()),
                   range.begin);
    }
    place = end + 1;
  }
}

}  // namespace

void restore_backup(const Store& store, const BackupRecord& record, int device_fd,
                    const ProgressSink& progress, std::stop_token stop) {
  if (device_size(device_fd) < record.info.source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "the device is shorter than the {} bytes of the volume in backup {}",
                record.info.source.size, record.info.uuid.to_string());
  }
  Restore(store, record, device_fd, progress, std::move(stop)).run();
}

}  // namespace convoy
