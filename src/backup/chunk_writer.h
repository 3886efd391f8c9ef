// Reads chunks from a volume's device and stores those that the store does not have, on all CPUs.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "backup/backup_record.h"
#include "backup/frame.h"
#include "backup/known_chunks.h"
#include "backup/leftover_chunks.h"
#include "backup/ordered_workers.h"
#include "backup/pack_writer.h"
#include "backup/source_ranges.h"
#include "backup/spare_buffers.h"
#include "backup/tree_node.h"
#include "sys/aligned_buffer.h"

namespace convoy {

// A leaf that is to say what the device holds in `ranges`, which all overlap it. Its other entries
// stay.
struct LeafUpdate {
  std::uint64_t first = 0;  // its first chunk
  std::vector<ChunkRange> ranges;
  TreeNode leaf;
};

// Used by one thread. Holds a few MiB for each of its threads.
class ChunkWriter {
 public:
  struct Parts {
    int device_fd;  // stays open as long as the writer lives
    TreeShape shape;
    Compression compression;
    PackWriter& packs;          // outlives the writer, and is used by nobody else meanwhile
    LeftoverChunks* leftovers;  // may be null
    // Called with the statistics before each piece; what it throws ends the work.
    std::function<void(const BackupStatistics&)> before_piece;
  };
  // `known` are chunks that are stored already: what equals one of them is not stored again.
  ChunkWriter(Parts parts, KnownChunks known);

  // Updates the leaves, whose ranges must ascend. Throws kIo, or what the PackWriter throws; the
  // writer is good for nothing then.
  void update_leaves(std::span<LeafUpdate> leaves);

  // bytes_stored is left at 0: the packs know it.
  BackupStatistics statistics() const;

 private:
  // Neighbouring chunks of one leaf.
  struct Piece {
    ByteRange range;
    std::span<std::optional<Reference>> entries;  // the old ones; finish() puts the new ones there
    struct Chunk {
      std::optional<Reference> reference;  // the entry to be
      std::uint32_t frame_length = 0;      // not 0: it is not known yet where the chunk will be
    };
    std::vector<Chunk> chunks;
    std::vector<std::byte> frames;  // of those chunks, one after the other
  };
  // What a thread needs for its work.
  struct Tools {
    explicit Tools(const Compression& compression);
    AlignedBuffer buffer;
    FrameEncoder encoder;
  };

  static std::deque<Tools> make_tools(unsigned threads, const Compression& compression);
  void add_leaf(LeafUpdate& update);
  void add_pieces(std::uint64_t first, std::uint64_t end,
                  std::span<std::optional<Reference>> entries);
  void read_and_compress(Piece& piece, Tools& tools);
  Piece::Chunk examine(std::span<const std::byte> plain, const std::optional<Reference>& old,
                       Tools& tools, std::vector<std::byte>& frames);
  void store(Piece& piece);
  std::optional<Reference> find_known(const Digest& digest) const;

  const Parts parts_;
  std::deque<Tools> tools_;  // by thread

  SpareBuffers frames_;

  mutable std::mutex mutex_;  // of the two below
  KnownChunks known_;         // besides, those that this backup has stored not long ago
  BackupStatistics statistics_;

  OrderedWorkers<Piece> workers_;  // last, since its threads use all the others
};

}  // namespace convoy
