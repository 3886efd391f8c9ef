// Makes a backup's tree out of its parent's: descends only where something changed, refers to all
// the rest where it is, and keeps the ledger of references on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "backup/backup_record.h"
#include "backup/chunk_writer.h"
#include "backup/node_reader.h"
#include "backup/pack_ledger.h"
#include "backup/pack_writer.h"
#include "backup/source_ranges.h"
#include "backup/tree_node.h"

namespace convoy {

// kKeepNodes refers to an unchanged node where it is; kWriteAll writes every node anew, so that a
// tree that many backups left in many packs stands in few again.
enum class NodeReuse { kKeepNodes, kWriteAll };

// One use. Not thread-safe.
class TreeUpdate {
 public:
  // Sets the entries of the leaves that lie in their ranges. Leaves and ranges ascend.
  using UpdateLeaves = std::function<void(std::span<LeafUpdate> leaves)>;

  // All references must outlive the update.
  struct Parts {
    TreeShape shape;            // of the new tree
    const ChunkRanges& ranges;  // what may differ from the parent
    NodeReader* parent_nodes;   // null without a parent
    PackWriter& tree_packs;     // takes the new nodes
    PackLedger& ledger;         // the parent's uses of packs, becomes the new backup's
    UpdateLeaves update_leaves;
    NodeReuse reuse = NodeReuse::kKeepNodes;
    // Empty: the parent is taken to be whole, and damage that shows is thrown. Else what this is
    // true for is read from the volume, and so is what stands under nodes that can't be read; all
    // nodes are written anew. The ledger must be empty then, since nobody knows how many references
    // a broken node held.
    std::function<bool(const Reference&)> is_unwanted = {};
    std::stop_token stop;
  };

  explicit TreeUpdate(Parts parts) : parts_(std::move(parts)) {}

  // The root of the new tree; nothing if all is zero. `root` and `height` are the parent's; the
  // height may be another one if the volume was resized. Throws kCorrupt if the parent's tree is
  // damaged, kCancelled, and what PackWriter::add and UpdateLeaves throw.
  std::optional<Reference> run(const std::optional<Reference>& root, std::uint32_t height);

 private:
  // What the parent's tree has at some place of the new one.
  struct OldNode {
    // Where the node is stored; nothing if there is none. Nothing also if the node only stands
    // above the root of a smaller volume's tree, which is then its first entry.
    std::optional<Reference> reference;
    TreeNode node;
    // The node's own level. Less than that of its place if it stands above a smaller volume's root.
    std::uint32_t level = 0;
    // What the node stands for can't be told: all of it is read from the volume.
    bool lost = false;
  };

  OldNode old_root(const std::optional<Reference>& root, std::uint32_t height);
  // The new references to nodes of one level, which ascend.
  struct Visited {
    std::uint64_t first;  // its first chunk
    OldNode old;
  };
  std::vector<std::optional<Reference>> update(std::uint32_t level, std::span<const Visited> nodes);
  std::vector<std::optional<Reference>> update_leaves(std::span<const Visited> nodes);
  std::vector<ChunkRange> ranges_in_leaf(std::uint64_t first, const OldNode& old) const;
  void count_changes(const TreeNode& old, const TreeNode& leaf);
  bool is_unwanted(const std::optional<Reference>& reference) const;
  bool is_repair() const { return static_cast<bool>(parts_.is_unwanted); }
  void release(const Reference& reference);
  // A node whose new entries are still to come.
  struct Parent {
    std::uint64_t first;  // its first chunk
    const OldNode* old;
    TreeNode node = {};                     // with the entries that stay
    std::vector<std::size_t> visited = {};  // the places of the others that may be there
  };
  Parent choose_children(std::uint32_t level, const Visited& visited);
  bool must_visit(const std::optional<Reference>& old_child, const OldNode& old,
                  std::uint32_t level, std::uint64_t child_first) const;
  std::optional<Reference> finish(std::uint32_t level, const std::optional<Reference>& old,
                                  const TreeNode& node);

  using Places = std::vector<std::size_t>;
  // The visited children, which are of `level`, of all parents.
  std::vector<Visited> read_children(std::uint32_t level, std::span<const Parent> parents);
  // A node of `level` whose first chunk is `first`.
  PackReader::Item item_of(std::uint32_t level, std::uint64_t first,
                           const Reference& reference) const;
  // The nodes of `level` that the items lead to. Nothing for one that is broken.
  std::vector<std::optional<TreeNode>> read_nodes(std::uint32_t level,
                                                  std::span<const PackReader::Item> items);
  // Takes the nodes of `level` that these entries of `parent` lead to out of the ledger, and all
  // that is under them.
  void drop(std::uint32_t level, std::uint64_t first, const TreeNode& parent, const Places& places);

  Parts parts_;
};

}  // namespace convoy
