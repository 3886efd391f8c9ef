// Reads nodes of a backup's tree, by many requests at once: a store that is far away answers each
// after a while, and the nodes may stand in many packs, or far from each other in one.
#pragma once

#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "backup/backup_record.h"
#include "backup/damage.h"
#include "backup/ordered_workers.h"
#include "backup/pack_footers.h"
#include "backup/pack_reader.h"
#include "backup/tree_node.h"
#include "objectstore/object_store.h"

namespace convoy {

// Used by one thread. All references must outlive it.
class NodeReader {
 public:
  NodeReader(ObjectStore& objects, const BackupRecord& record, PackFooters& footers)
      : objects_(objects), record_(record), footers_(footers) {
    packs_.emplace_back(objects, record, footers);
  }

  // Reads the nodes of `level` that the items lead to, and calls `visit` with each one's index, in
  // no particular order, one at a time. What is damaged goes to `damaged`; if that is empty, throws
  // as PackReader::read.
  using Visit = std::function<void(std::size_t index, const TreeNode& node)>;
  void read(std::uint32_t level, std::span<const PackReader::Item> items, const Visit& visit,
            const DamageSink& damaged);

 private:
  ObjectStore& objects_;
  const BackupRecord& record_;
  PackFooters& footers_;

  // Items that are neighbours in one pack.
  struct Piece {
    std::vector<PackReader::Item> items;
    std::vector<std::size_t> indices;  // of the same in the whole
    std::vector<std::pair<std::size_t, TreeNode>> nodes = {};
    std::exception_ptr error = nullptr;
  };

  static std::vector<Piece> divide(std::span<const PackReader::Item> items);
  void start_threads();
  void read_piece(Piece& piece, PackReader& packs) const;
  void finish(const Piece& piece);

  std::uint32_t level_ = 0;
  const Visit* visit_ = nullptr;
  const DamageSink* damaged_ = nullptr;
  std::exception_ptr error_;
  std::deque<PackReader> packs_;  // by thread

  // Begun when several pieces are first asked for, which a small tree never does. Last,
  // since the threads use all the others.
  std::optional<OrderedWorkers<Piece>> workers_;
};

}  // namespace convoy
