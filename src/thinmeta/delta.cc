#include "thinmeta/delta.h"

#include <algorithm>
#include <compare>
#include <cstdint>
#include <unordered_set>
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

// Those below nodes that are in memory, as far as they end at `end`: the other tree may have one
// that reaches beyond in a node that was not looked at. None of a damaged node, which the walk
// comes upon.
std::vector<Subtree> subtrees_below(BlockReader& reader, const Tree& tree,
                                    const std::vector<Subtree>& parents, std::uint64_t end) {
  std::vector<Subtree> subtrees;
  for (const Subtree& parent : parents) {
    if (!reader.is_in_memory(parent.block)) continue;
    try {
      const Node node = Node::read(reader, tree, parent.block, parent.keys, NodeKind::kInner);
      for (std::size_t i = 0; i < node.size() && node.child_range(i).end <= end; ++i)
        subtrees.push_back({node.child(i), node.child_range(i)});
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kCorrupt) throw;
    }
  }
  return subtrees;
}

void remove_shared(std::vector<Subtree>& ours, std::vector<Subtree>& theirs) {
  const auto blocks_of = [](const std::vector<Subtree>& subtrees) {
    std::unordered_set<std::uint64_t> blocks;
    for (const Subtree& subtree : subtrees) blocks.insert(subtree.block);
    return blocks;
  };
  const auto our_blocks = blocks_of(ours);
  const auto their_blocks = blocks_of(theirs);
  std::erase_if(ours, [&](const Subtree& it) { return their_blocks.contains(it.block); });
  std::erase_if(theirs, [&](const Subtree& it) { return our_blocks.contains(it.block); });
}

void read_ahead(BlockReader& reader, const std::vector<Subtree>& ours,
                const std::vector<Subtree>& theirs) {
  std::vector<std::uint64_t> blocks;
  for (const auto* const subtrees : {&ours, &theirs})
    for (const Subtree& subtree : *subtrees) blocks.push_back(subtree.block);
  if (blocks.size() > 1) reader.read_ahead(std::move(blocks));
}

// Where changes are scattered, a node leads to one or two that differ, and each would be a wait of
// its own. More than so many are left to their parents, which have enough of them then; and a few
// levels of so many stay in the reader's memory until the walk is there.
constexpr std::size_t kMaxBelow = BlockReader::kMaxAhead / 2;

// `cursor` will open the subtree that is its head. What the walk will read of its siblings is read
// together with it: what the other tree does not have, as far as its nodes on the way tell. If both
// are at the same place, as in trees of which one is a snapshot of the other, then also what is
// below them; else it can't be told what is shared there.
void read_ahead(BlockReader& reader, const TreeCursor& cursor, const TreeCursor* other) {
  if (reader.is_in_memory(cursor.subtree())) return;
  const std::optional<Siblings> siblings = cursor.siblings(cursor.level());
  if (!siblings) return;
  if (other == nullptr || other->at_end())
    return read_ahead(reader, subtrees_of(*siblings, siblings->end), {});
  const auto others = other->siblings(cursor.level());
  if (!others) return read_ahead(reader, subtrees_of(*siblings, other->key()), {});
  const std::uint64_t end = std::min(siblings->end, others->end);
  std::vector<Subtree> ours = subtrees_of(*siblings, end);
  std::vector<Subtree> theirs = subtrees_of(*others, end);
  remove_shared(ours, theirs);
  read_ahead(reader, ours, theirs);
  if (other->level() != cursor.level() || other->key() != cursor.key()) return;
  for (unsigned level = cursor.level() - 1; level > 0; --level) {
    ours = subtrees_below(reader, cursor.tree(), ours, end);
    theirs = subtrees_below(reader, other->tree(), theirs, end);
    remove_shared(ours, theirs);
    if (ours.size() + theirs.size() > kMaxBelow) return;
    read_ahead(reader, ours, theirs);
  }
}

// Two trees, walked side by side.
class PairWalk {
 public:
  PairWalk(BlockReader& reader, const Tree& first, const Tree& second, Same same,
           const std::function<void(const BlockPair&)>& visit)
      : reader_(reader),
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
      read_ahead(reader_, cursor, other);
      cursor.open();
    }
  }

  BlockReader& reader_;
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
