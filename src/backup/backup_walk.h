// The way through a backup's tree to its chunks, for those who read all of it: restore and verify.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "backup/backup_record.h"
#include "backup/damage.h"
#include "backup/node_reader.h"
#include "backup/pack_reader.h"
#include "backup/tree_node.h"

namespace convoy {

// One use, by one thread. All references must outlive it.
class BackupWalk {
 public:
  struct Parts {
    const BackupRecord& record;
    NodeReader& nodes;
    DamageSink damaged;
    std::string_view work;  // what is cancelled by `stop`, such as "restore"
    std::stop_token stop;
    // Leaves out the nodes for which it is true, and all that is under them. May be empty.
    std::function<bool(const Reference& node)> known = {};
  };
  explicit BackupWalk(Parts parts) : parts_(std::move(parts)), shape_(parts_.record.shape()) {}

  // Calls `on_leaf` with the chunks of each leaf, from the volume's begin to its end. Throws
  // kCancelled, what NodeReader::read throws, and what `on_leaf` throws.
  using OnLeaf = std::function<void(std::span<const PackReader::Item> chunks)>;
  void run(const OnLeaf& on_leaf);

 private:
  std::vector<PackReader::Item> items_of(const TreeNode& node, std::uint64_t first,
                                         std::uint64_t span) const;
  void visit_nodes(std::uint32_t level, std::span<const PackReader::Item> items,
                   const OnLeaf& on_leaf);

  const Parts parts_;
  const TreeShape shape_;
};

// Puts chunks into the order in which they stand in packs, and divides them into pieces of
// neighbours there, each for one thread. After many incremental backups, the chunks of a few MiB of
// the volume stand in as many packs; taken together with those of the next GiB, each pack is read
// once, from its begin to its end. Of a fresh backup the order is the volume's own.
class PackOrder {
 public:
  using Piece = std::vector<PackReader::Item>;  // of one pack
  using OnPiece = std::function<void(Piece piece)>;
  PackOrder(std::uint32_t chunk_size, OnPiece on_piece)
      : chunks_per_piece_(kPieceSize / chunk_size), on_piece_(std::move(on_piece)) {}

  // What a piece stands for has at most so many bytes: what is often compressed to one run of
  // PackReader, and so one request.
  static constexpr std::uint64_t kPieceSize = 16 * kMiB;

  // Throws what on_piece throws.
  void add(std::span<const PackReader::Item> chunks);
  // Hands over all that is left.
  void flush();

 private:
  const std::size_t chunks_per_piece_;
  const OnPiece on_piece_;
  std::vector<PackReader::Item> chunks_;
};

// Throws kCorrupt unless a chunk has as many bytes as it stands for.
void check_chunk_length(const PackReader::Item& item, std::span<const std::byte> plain);

}  // namespace convoy
