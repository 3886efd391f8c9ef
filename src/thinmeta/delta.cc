#include "thinmeta/delta.h"

#include <algorithm>
#include <compare>
#include <cstdint>
#include <unordered_set>
#include <vector>

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

// Those of `siblings` below `end` that `others` doesn't have.
void add_unshared(const Siblings& siblings, const Siblings& others, std::uint64_t end,
                  std::vector<std::uint64_t>& blocks) {
  std::unordered_set<std::uint64_t> shared;
  for (const Siblings::Subtree& subtree : others.subtrees) shared.insert(subtree.block);
  for (const Siblings::Subtree& subtree : siblings.subtrees) {
    if (subtree.key < end && !shared.contains(subtree.block)) blocks.push_back(subtree.block);
  }
}

// `cursor` will open the subtree that is its head. What the walk will read of its siblings is read
// together with it: those that the other tree does not have, as far as its nodes on the way tell.
void read_ahead(BlockReader& reader, const TreeCursor& cursor, const TreeCursor* other) {
  if (reader.is_in_memory(cursor.subtree())) return;
  const std::optional<Siblings> siblings = cursor.siblings(cursor.level());
  if (!siblings) return;
  std::vector<std::uint64_t> blocks;
  if (other == nullptr || other->at_end()) {
    add_unshared(*siblings, {}, siblings->end, blocks);
  } else if (const auto others = other->siblings(cursor.level())) {
    const std::uint64_t end = std::min(siblings->end, others->end);
    add_unshared(*siblings, *others, end, blocks);
    add_unshared(*others, *siblings, end, blocks);
  } else {
    add_unshared(*siblings, {}, other->key(), blocks);
  }
  if (blocks.size() > 1) reader.read_ahead(std::move(blocks));
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
