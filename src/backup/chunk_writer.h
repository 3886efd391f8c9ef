// Reads chunks from a volume's device and stores those that the store does not have.
#pragma once

#include <cstdint>
#include <span>
#include <stop_token>

#include "backup/backup_record.h"
#include "backup/pack_writer.h"
#include "backup/progress.h"
#include "backup/recent_chunks.h"
#include "backup/source_ranges.h"
#include "backup/tree_node.h"
#include "sys/aligned_buffer.h"

namespace convoy {

// Not thread-safe. Holds the chunks of one leaf in memory.
class ChunkWriter {
 public:
  // For a backup that reads so many bytes. `packs` must outlive the writer, and `device_fd` stay
  // open.
  ChunkWriter(int device_fd, const TreeShape& shape, std::uint64_t bytes_to_read,
              PackWriter& packs);

  // Makes the leaf that begins at chunk `first` say what the device holds in `ranges`, which all
  // overlap the leaf. Its other entries stay. Throws kIo, or what the PackWriter throws.
  void update_leaf(std::uint64_t first, std::span<const ChunkRange> ranges, TreeNode& leaf);

  // bytes_stored is left at 0: the packs know it.
  const BackupStatistics& statistics() const { return statistics_; }

 private:
  void read_chunks(std::uint64_t first, std::uint64_t end, std::span<std::optional<Reference>> out);
  std::optional<Reference> store(std::span<const std::byte> plain,
                                 const std::optional<Reference>& old);

  int device_fd_;
  TreeShape shape_;
  PackWriter& packs_;
  AlignedBuffer buffer_;
  RecentChunks recent_;
  BackupStatistics statistics_;
};

}  // namespace convoy
