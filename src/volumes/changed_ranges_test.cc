#include "volumes/changed_ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convoy {
namespace {

using testing::ElementsAre;

constexpr std::uint64_t kBlock = 64 * kKiB;

ChangedRange blocks(std::uint64_t first, std::uint64_t end, Change change = Change::kAdded) {
  return {{first * kBlock, end * kBlock}, change};
}

TEST(ChangedRangesTest, AreKeptAsTheyAreWhileThereIsRoom) {
  ChangedRanges ranges(4);
  const std::vector all = {blocks(0, 1), blocks(1, 2, Change::kRemoved), blocks(3, 4),
                           blocks(9, 20, Change::kDifferent)};
  for (const ChangedRange& range : all) ranges.add(range);
  EXPECT_EQ(ranges.take(), all);
}

TEST(ChangedRangesTest, ThatLieClosestBecomeOne) {
  ChangedRanges ranges(4);
  for (const auto& range : {blocks(0, 1), blocks(1, 2, Change::kRemoved), blocks(3, 4),
                            blocks(1000, 1001, Change::kRemoved), blocks(2000, 2010)})
    ranges.add(range);
  EXPECT_THAT(ranges.take(), ElementsAre(blocks(0, 4, Change::kDifferent),
                                         blocks(1000, 1001, Change::kRemoved), blocks(2000, 2010)));
}

TEST(ChangedRangesTest, CoverAllAndAreNeverMoreThanTheLimit) {
  for (const std::size_t limit : {2U, 3U, 10U, 1000U}) {
    ChangedRanges ranges(limit);
    std::vector<ChangedRange> added;
    std::uint64_t block = 0;
    for (std::uint64_t i = 0; i < 5000; ++i) {
      block += i * 7919 % 64;
      added.push_back(blocks(block, block + 1 + i % 3));
      block = added.back().range.end / kBlock;
      ranges.add(added.back());
    }
    const std::vector<ChangedRange> kept = ranges.take();
    EXPECT_LE(kept.size(), limit);
    EXPECT_GE(kept.size(), limit / 2);
    auto holder = kept.begin();
    for (const auto& [range, change] : added) {
      while (holder != kept.end() && holder->range.end < range.end) ++holder;
      ASSERT_NE(holder, kept.end());
      ASSERT_LE(holder->range.begin, range.begin);
    }
    EXPECT_EQ(kept.back().range.end, added.back().range.end);
  }
}

}  // namespace
}  // namespace convoy
