// A B-tree as a stream of entries in ascending order, in which whole subtrees can be passed over
// unread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "thinmeta/node.h"

namespace convoy::thinmeta {

// A cursor stands before its head: either an entry of a leaf or a subtree that was not opened yet,
// which at the start is the whole tree. It holds one node per level. Not thread-safe; `reader` and
// `tree` must outlive it.
class TreeCursor {
 public:
  // Reads down to the first leaf, since only that tells how high the tree is. These nodes are kept,
  // so that opening them later costs nothing. Throws as Node::read does, and kCorrupt if there is
  // no leaf down to kMaxHeight.
  TreeCursor(BlockReader& reader, const Tree& tree);

  const Tree& tree() const { return *tree_; }

  // No head is left: nothing below may be called.
  bool at_end() const { return !head_; }

  // Of an entry: 0. Of a subtree: how many nodes are on the way from its top to a leaf, both
  // counted.
  unsigned level() const { return head_->level; }

  // An entry's key, or the lowest that the subtree may hold.
  std::uint64_t key() const { return head_->key; }

  // Of a subtree: the block of its top node.
  std::uint64_t subtree() const {
    return path_.empty() ? tree_->root : top().node.child(top().index);
  }

  // The subtrees of one level that one node leads to, from the first that the cursor has not
  // passed.
  struct Siblings {
    struct Subtree {
      std::uint64_t key;  // the lowest that it may hold
      std::uint64_t block;
    };
    std::vector<Subtree> subtrees;
    std::uint64_t end;  // all their keys are below
  };
  // Those on the way to the head; nothing if the cursor is not below a node of them.
  std::optional<Siblings> siblings(unsigned level) const;

  // Of an entry. Value has the tree's value size.
  template <typename Value>
  Value value() const {
    return top().node.value<Value>(top().index);
  }

  // Passes over the head.
  void skip();

  // Opens the subtree that is the head: the first in it becomes the head, or what follows it if it
  // is an empty leaf. Throws as Node::read does, and kCorrupt if its node is of another level than
  // it should be.
  void open();
  // As open, and reads the rest of its siblings ahead: for a walk that passes over nothing.
  void open_with_siblings();

 private:
  struct Head {
    unsigned level;
    std::uint64_t key;
  };
  struct Position {
    Node node;
    std::size_t index;
  };

  const Position& top() const { return path_.back(); }
  void find_head();

  BlockReader* reader_;
  const Tree* tree_;
  unsigned height_ = 0;
  std::vector<Node> leftmost_;  // the way from the first leaf up to the root, less what is in path_
  std::vector<Position> path_;  // from the root to the head; empty while the head is the whole tree
  std::optional<Head> head_;
};

}  // namespace convoy::thinmeta
