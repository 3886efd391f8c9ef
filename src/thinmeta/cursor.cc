#include "thinmeta/cursor.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace convoy::thinmeta {

TreeCursor::TreeCursor(BlockReader& reader, const Tree& tree) : reader_(&reader), tree_(&tree) {
  leftmost_.push_back(Node::read(reader, tree, tree.root, {0, tree.key_end}));
  while (!leftmost_.back().is_leaf()) {
    if (leftmost_.size() == kMaxHeight) {
      throw Error(
          ErrorKind::kCorrupt,
          "{}, node in block {} for keys 0 to {}: there is no leaf down to level {} below it",
          tree.name, tree.root, tree.key_end, kMaxHeight);
    }
    const Node& parent = leftmost_.back();
    leftmost_.push_back(Node::read(reader, tree, parent.child(0), parent.child_range(0)));
  }
  height_ = static_cast<unsigned>(leftmost_.size());
  head_ = Head{height_, 0};
  std::ranges::reverse(leftmost_);
}

std::optional<TreeCursor::Siblings> TreeCursor::siblings(unsigned level) const {
  // The subtrees below path_[0] are of level height_ - 1.
  if (level == 0 || level >= height_ || height_ - 1 - level >= path_.size()) return std::nullopt;
  const Position& position = path_[height_ - 1 - level];
  const Node& node = position.node;
  Siblings siblings;
  // Of one that is open, the subtree at the index is passed.
  const std::size_t first = position.index + (&position == &top() ? 0 : 1);
  for (std::size_t i = first; i < node.size(); ++i)
    siblings.subtrees.push_back({node.key(i), node.child(i)});
  siblings.end = node.child_range(node.size() - 1).end;
  return siblings;
}

void TreeCursor::skip() {
  leftmost_.clear();  // beyond the first entry or subtree, none of them comes again
  if (path_.empty()) {
    head_.reset();
    return;
  }
  Position& position = path_.back();
  ++position.index;
  if (position.index < position.node.size()) {
    head_->key = position.node.key(position.index);
  } else {
    find_head();
  }
}

void TreeCursor::open() {
  if (!leftmost_.empty()) {
    path_.push_back({std::move(leftmost_.back()), 0});
    leftmost_.pop_back();
  } else {
    path_.push_back({Node::read(*reader_, *tree_, subtree(), top().node.child_range(top().index),
                                level() == 1 ? NodeKind::kLeaf : NodeKind::kInner),
                     0});
  }
  find_head();
}

void TreeCursor::open_with_siblings() {
  const auto rest = siblings(level());
  if (rest && !reader_->is_ahead(subtree())) {
    std::vector<std::uint64_t> blocks;
    blocks.reserve(rest->subtrees.size());
    for (const Siblings::Subtree& sibling : rest->subtrees) blocks.push_back(sibling.block);
    reader_->read_ahead(std::move(blocks));
  }
  open();
}

// Leaves the nodes that are finished and takes the next entry or subtree of the lowest that is not.
void TreeCursor::find_head() {
  while (!path_.empty() && path_.back().index == path_.back().node.size()) {
    path_.pop_back();
    if (!path_.empty()) ++path_.back().index;
  }
  if (path_.empty()) {
    head_.reset();
  } else {
    head_ = Head{height_ - static_cast<unsigned>(path_.size()), top().node.key(top().index)};
  }
}

}  // namespace convoy::thinmeta
