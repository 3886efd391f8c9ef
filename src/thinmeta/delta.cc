#include "thinmeta/delta.h"

#include <algorithm>
#include <compare>
#include <cstdint>
#include <iterator>
#include <vector>

#include "base/error.h"
#include "thinmeta/cursor.h"

namespace convoy::thinmeta {
namespace {

Change change_of(const BlockPair& pair) {
  if (!pair.first) return Change::kAdded;
  return pair.second ? Change::kDifferent : Change::kRemoved;
}

// Makes ranges of single blocks that come in ascending order.
class RangeMerger {
 public:
  explicit RangeMerger(const std::function<void(const DeltaRange&)>& visit) : visit_(visit) {}

  void add(const BlockPair& pair) {
    const Change change = change_of(pair);
    if (range_ && range_->change == change && range_->end == pair.block) {
      ++range_->end.count;
      return;
    }
    finish();
    range_ = DeltaRange{pair.block, {pair.block.count + 1}, change};
  }

  // Must be called after the last add.
  void finish() {
    if (range_) visit_(*range_);
    range_.reset();
  }

 private:
  const std::function<void(const DeltaRange&)>& visit_;
  std::optional<DeltaRange> range_;
};

std::uint64_t data_block_of(const TreeCursor& cursor) {
  return cursor.value<DiskMapping>() >> kMappingTimeBits;
}

bool is_same_subtree(const TreeCursor& a, const TreeCursor& b) {
  return a.level() > 0 && a.level() == b.level() && a.subtree() == b.subtree();
}

// Which of two heads has its turn. It is the one that begins lower, since nothing of the other can
// come before it. If both begin together it is the higher one: a subtree of the other may be below
// it, and is then found before it is opened as well.
std::strong_ordering compare_turns(const TreeCursor& a, const TreeCursor& b) {
  if (a.key() != b.key()) return a.key() <=> b.key();
  return b.level() <=> a.level();
}

using Siblings = TreeCursor::Siblings;

// A subtree by its top node, and the keys that its parent promises.
struct Subtree {
  std::uint64_t block;
  KeyRange keys;
};

std::vector<Subtree> subtrees_of(const Siblings& siblings, std::uint64_t end) {
  std::vector<Subtree> subtrees;
  for (std::size_t i = 0; i < siblings.subtrees.size(); ++i) {
    const auto& [key, block] = siblings.subtrees[i];
    const bool is_last = i + 1 == siblings.subtrees.size();
    if (key < end)
      subtrees.push_back({block, {key, is_last ? siblings.end : siblings.subtrees[i + 1].key}});
  }
  return subtrees;
}

// Subtrees of each of two trees, in the order of their keys.
struct Difference {
  std::vector<Subtree> ours;
  std::vector<Subtree> theirs;

  std::size_t size() const { return ours.size() + theirs.size(); }
};

// What both have goes.
void remove_shared(Difference& difference) {
  const auto blocks_of = [](const std::vector<Subtree>& subtrees) {
    std::vector<std::uint64_t> blocks(subtrees.size());
    std::ranges::transform(subtrees, blocks.begin(), &Subtree::block);
    std::ranges::sort(blocks);
    return blocks;
  };
  const auto our_blocks = blocks_of(difference.ours);
  const auto their_blocks = blocks_of(difference.theirs);
  const auto remove = [](std::vector<Subtree>& subtrees, const std::vector<std::uint64_t>& blocks) {
    std::erase_if(subtrees, [&](const Subtree& subtree) {
      return std::ranges::binary_search(blocks, subtree.block);
    });
  };
  remove(difference.ours, their_blocks);
  remove(difference.theirs, our_blocks);
}

// Reads ahead for a walk through two trees: what only one of them has, as far as the nodes on the
// way tell.
class AheadOfWalk {
 public:
  explicit AheadOfWalk(BlockReader& reader) : reader_(reader) {}

  // `cursor` will open the subtree that is its head. Its siblings are read together with it. If
  // `other` is at the same place, as in trees of which one is a snapshot of the other, then also
  // what is below them; else it can't be told what is shared there.
  void read(const TreeCursor& cursor, const TreeCursor* other) {
    if (reader_.is_ahead(cursor.subtree())) return;
    const std::optional<Siblings> siblings = cursor.siblings(cursor.level());
    if (!siblings) return;
    if (other == nullptr || other->at_end())
      return ask_for({subtrees_of(*siblings, siblings->end), {}});
    const auto others = other->siblings(cursor.level());
    if (!others) return ask_for({subtrees_of(*siblings, other->key()), {}});
    const std::uint64_t end = std::min(siblings->end, others->end);
    Difference difference = {subtrees_of(*siblings, end), subtrees_of(*others, end)};
    remove_shared(difference);
    const bool same_place = other->level() == cursor.level() && other->key() == cursor.key();
    if (cursor.level() > 1 && same_place) {
      read_with_lower_levels(std::move(difference), cursor, *other);
    } else {
      ask_for(difference);
    }
  }

 private:
  // Where changes are scattered, a node leads to one or two that differ, and each would be a wait
  // of its own. So many nodes' children are looked at that there are about as many in the end as
  // the reader keeps for us.
  void read_with_lower_levels(Difference difference, const TreeCursor& cursor,
                              const TreeCursor& other) {
    if (difference.ours.size() > width_) difference.ours.resize(width_);
    if (difference.theirs.size() > width_) difference.theirs.resize(width_);
    ask_for(difference);
    bool has_more = false;
    for (unsigned level = cursor.level() - 1; level > 0; --level) {
      difference = below(difference, cursor.tree(), other.tree(), has_more);
      ask_for(difference);
    }
    width_ = has_more ? std::max(width_ / 4, kMinWidth) : std::min(2 * width_, kMaxWidth);
  }

  // What differs below nodes of the two trees, up to kMaxBelow; then `has_more` is set.
  Difference below(const Difference& parents, const Tree& tree, const Tree& other_tree,
                   bool& has_more) {
    Difference all;
    auto ours = parents.ours.begin();
    auto theirs = parents.theirs.begin();
    while (ours != parents.ours.end() && theirs != parents.theirs.end()) {
      // As many of each as make them end together: then what they share is below them in both.
      Difference part;
      add_children(part.ours, tree, *ours);
      add_children(part.theirs, other_tree, *theirs);
      while (ours->keys.end != theirs->keys.end) {
        if (ours->keys.end < theirs->keys.end) {
          if (++ours == parents.ours.end()) return all;
          add_children(part.ours, tree, *ours);
        } else {
          if (++theirs == parents.theirs.end()) return all;
          add_children(part.theirs, other_tree, *theirs);
        }
      }
      ++ours;
      ++theirs;
      remove_shared(part);
      if (all.size() + part.size() > kMaxBelow) {
        has_more = true;
        return all;
      }
      all.ours.insert(all.ours.end(), part.ours.begin(), part.ours.end());
      all.theirs.insert(all.theirs.end(), part.theirs.begin(), part.theirs.end());
    }
    return all;
  }

  // None of a damaged node, which the walk comes upon.
  void add_children(std::vector<Subtree>& children, const Tree& tree, const Subtree& parent) {
    if (!reader_.is_ahead(parent.block)) return;
    try {
      const Node node = Node::read(reader_, tree, parent.block, parent.keys, NodeKind::kInner);
      for (std::size_t i = 0; i < node.size(); ++i)
        children.push_back({node.child(i), node.child_range(i)});
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kIo) throw;
    }
  }

  // In the order in which the walk comes to them.
  void ask_for(const Difference& difference) {
    std::vector<Subtree> subtrees;
    std::ranges::merge(
        difference.ours, difference.theirs, std::back_inserter(subtrees), {},
        [](const Subtree& subtree) { return subtree.keys.begin; },
        [](const Subtree& subtree) { return subtree.keys.begin; });
    std::vector<std::uint64_t> blocks(subtrees.size());
    std::ranges::transform(subtrees, blocks.begin(), &Subtree::block);
    if (blocks.size() > 1) reader_.read_ahead(std::move(blocks));
  }

  // A few levels of so many stay in the reader's memory until the walk is there.
  static constexpr std::size_t kMaxBelow = BlockReader::kMaxAhead / 2;
  // A node has at most as many children; and with fewer than the least, each is a wait again.
  static constexpr std::size_t kMaxWidth = 252;
  static constexpr std::size_t kMinWidth = 4;

  BlockReader& reader_;
  // Of how many neighbours the children are looked at: few where all differs, for the rest would be
  // forgotten until the walk is there.
  std::size_t width_ = kMaxWidth;
};

// Two trees, walked side by side.
class PairWalk {
 public:
  PairWalk(BlockReader& reader, const Tree& first, const Tree& second, Same same,
           const std::function<void(const BlockPair&)>& visit)
      : ahead_(reader),
        first_(reader, first),
        second_(reader, second),
        same_(same),
        visit_(visit) {}

  void run() {
    while (!first_.at_end() && !second_.at_end()) {
      // Asked before the keys: two parents may promise different lowest keys for the same subtree.
      if (same_ == Same::kSkipped && is_same_subtree(first_, second_)) {
        first_.skip();
        second_.skip();
        continue;
      }
      const std::strong_ordering turn = compare_turns(first_, second_);
      if (turn < 0) {
        take_first(&second_);
      } else if (turn > 0) {
        take_second(&first_);
      } else {
        take_both();
      }
    }
    while (!first_.at_end()) take_first(nullptr);
    while (!second_.at_end()) take_second(nullptr);
  }

 private:
  // The first has its turn, and the other tree has nothing where its head begins.
  void take_first(const TreeCursor* other) {
    if (first_.level() > 0) return open(first_, other);
    visit_({{first_.key()}, data_block_of(first_), std::nullopt});
    first_.skip();
  }

  void take_second(const TreeCursor* other) {
    if (second_.level() > 0) return open(second_, other);
    visit_({{second_.key()}, std::nullopt, data_block_of(second_)});
    second_.skip();
  }

  // They begin at the same key and are of the same level.
  void take_both() {
    if (first_.level() > 0) {
      open(first_, &second_);
      if (same_ == Same::kVisited) {
        second_.open_with_siblings();
      } else {
        second_.open();  // its siblings came with the first's
      }
      return;
    }
    const BlockPair pair = {{first_.key()}, data_block_of(first_), data_block_of(second_)};
    if (same_ == Same::kVisited || pair.first != pair.second) visit_(pair);
    first_.skip();
    second_.skip();
  }

  void open(TreeCursor& cursor, const TreeCursor* other) {
    if (same_ == Same::kVisited) {
      cursor.open_with_siblings();
    } else {
      ahead_.read(cursor, other);
      cursor.open();
    }
  }

  AheadOfWalk ahead_;
  TreeCursor first_;
  TreeCursor second_;
  Same same_;
  const std::function<void(const BlockPair&)>& visit_;
};

}  // namespace

void walk_pairs(BlockReader& reader, const std::optional<Tree>& first, const Tree& second,
                Same same, const std::function<void(const BlockPair&)>& visit) {
  if (first) {
    // A snapshot of an unchanged device has its very root.
    if (same == Same::kSkipped && first->root == second.root) return;
    PairWalk(reader, *first, second, same, visit).run();
    return;
  }
  for (TreeCursor cursor(reader, second); !cursor.at_end();) {
    if (cursor.level() > 0) {
      cursor.open_with_siblings();
      continue;
    }
    visit({{cursor.key()}, std::nullopt, data_block_of(cursor)});
    cursor.skip();
  }
}

void walk_delta(BlockReader& reader, const std::optional<Tree>& first, const Tree& second,
                const std::function<void(const DeltaRange&)>& visit) {
  RangeMerger merger(visit);
  walk_pairs(reader, first, second, Same::kSkipped,
             [&](const BlockPair& pair) { merger.add(pair); });
  merger.finish();
}

}  // namespace convoy::thinmeta
