#include "backup/known_chunks.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace convoy {
namespace {

Reference chunk(std::uint32_t number) {
  return {.pack = {}, .slot = number, .digest = sha256(as_bytes(std::to_string(number)))};
}

TEST(KnownChunks, FindsWhatItWasTold) {
  KnownChunks known(100);
  EXPECT_EQ(known.find(chunk(1).digest), nullptr);
  known.remember(chunk(1));
  ASSERT_NE(known.find(chunk(1).digest), nullptr);
  EXPECT_EQ(known.find(chunk(1).digest)->slot, 1U);
}

// As a volume does that repeats itself: what is forgotten is stored anew each time.
TEST(KnownChunks, KnowsAPatternOfASixteenthOfItsSize) {
  KnownChunks known(kKnownChunks);
  std::size_t stored = 0;
  constexpr std::uint32_t kPattern = kKnownChunks / 16;
  for (int round = 0; round < 4; ++round) {
    for (std::uint32_t number = 0; number < kPattern; ++number) {
      if (known.find(chunk(number).digest) != nullptr) continue;
      known.remember(chunk(number));
      ++stored;
    }
  }
  EXPECT_LT(stored, kPattern + kPattern / 1000);
}

TEST(KnownChunks, IsOfFixedSize) {
  KnownChunks known(8);
  std::size_t found = 0;
  for (std::uint32_t number = 0; number < 1000; ++number) known.remember(chunk(number));
  for (std::uint32_t number = 0; number < 1000; ++number)
    found += known.find(chunk(number).digest) != nullptr ? 1 : 0;
  EXPECT_EQ(found, 8U);
}

}  // namespace
}  // namespace convoy
