#include "thinmeta/delta.h"

#include <compare>
#include <cstdint>

#include "thinmeta/cursor.h"

namespace convoy::thinmeta {
namespace {

// Makes ranges of single blocks that come in ascending order.
class RangeMerger {
 public:
  explicit RangeMerger(const std::function<void(const DeltaRange&)>& visit) : visit_(visit) {}

  void add(std::uint64_t block, Change change) {
    if (range_ && range_->change == change && range_->end.count == block) {
      ++range_->end.count;
      return;
    }
    finish();
    range_ = DeltaRange{{block}, {block + 1}, change};
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

// `cursor` has its turn, and the other tree has nothing where its head begins.
void take_turn(TreeCursor& cursor, Change change, RangeMerger& merger) {
  if (cursor.level() > 0) {
    cursor.open();
  } else {
    merger.add(cursor.key(), change);
    cursor.skip();
  }
}

// Both have their turn: they begin at the same key and are of the same level.
void take_turn_together(TreeCursor& first, TreeCursor& second, RangeMerger& merger) {
  if (first.level() > 0) {
    first.open();
    second.open();
    return;
  }
  if (data_block_of(first) != data_block_of(second)) merger.add(first.key(), Change::kDifferent);
  first.skip();
  second.skip();
}

void merge(TreeCursor& first, TreeCursor& second, RangeMerger& merger) {
  while (!first.at_end() && !second.at_end()) {
    // Asked before the keys: two parents may promise different lowest keys for the same subtree.
    if (is_same_subtree(first, second)) {
      first.skip();
      second.skip();
      continue;
    }
    const std::strong_ordering turn = compare_turns(first, second);
    if (turn < 0) {
      take_turn(first, Change::kRemoved, merger);
    } else if (turn > 0) {
      take_turn(second, Change::kAdded, merger);
    } else {
      take_turn_together(first, second, merger);
    }
  }
  while (!first.at_end()) take_turn(first, Change::kRemoved, merger);
  while (!second.at_end()) take_turn(second, Change::kAdded, merger);
}

}  // namespace

void walk_delta(BlockReader& reader, const std::optional<Tree>& first, const Tree& second,
                const std::function<void(const DeltaRange&)>& visit) {
  RangeMerger merger(visit);
  if (!first) {
    for (TreeCursor cursor(reader, second); !cursor.at_end();) {
      take_turn(cursor, Change::kAdded, merger);
    }
  } else if (first->root != second.root) {  // a snapshot of an unchanged device has its very root
    TreeCursor first_cursor(reader, *first);
    TreeCursor second_cursor(reader, second);
    merge(first_cursor, second_cursor, merger);
  }
  merger.finish();
}

}  // namespace convoy::thinmeta
