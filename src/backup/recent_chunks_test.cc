#include "backup/recent_chunks.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace convoy {
namespace {

Reference chunk(std::uint32_t number) {
  return {.pack = {}, .slot = number, .digest = sha256(as_bytes(std::to_string(number)))};
}

TEST(RecentChunks, FindsWhatItWasTold) {
  RecentChunks recent(100);
  EXPECT_EQ(recent.find(chunk(1).digest), nullptr);
  recent.remember(chunk(1));
  ASSERT_NE(recent.find(chunk(1).digest), nullptr);
  EXPECT_EQ(recent.find(chunk(1).digest)->slot, 1U);
}

// As a volume does that repeats itself: what is forgotten is stored anew each time.
TEST(RecentChunks, KnowsAPatternOfASixteenthOfItsSize) {
  RecentChunks recent(kRecentChunks);
  std::size_t stored = 0;
  constexpr std::uint32_t kPattern = kRecentChunks / 16;
  for (int round = 0; round < 4; ++round) {
    for (std::uint32_t number = 0; number < kPattern; ++number) {
      if (recent.find(chunk(number).digest) != nullptr) continue;
      recent.remember(chunk(number));
      ++stored;
    }
  }
  EXPECT_LT(stored, kPattern + kPattern / 1000);
}

TEST(RecentChunks, IsOfFixedSize) {
  RecentChunks recent(8);
  std::size_t known = 0;
  for (std::uint32_t number = 0; number < 1000; ++number) recent.remember(chunk(number));
  for (std::uint32_t number = 0; number < 1000; ++number)
    known += recent.find(chunk(number).digest) != nullptr ? 1 : 0;
  EXPECT_EQ(known, 8U);
}

}  // namespace
}  // namespace convoy
