#include "backup/pack_set.h"

#include <random>
#include <set>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convoy {
namespace {

TEST(PackSet, HoldsWhatWasPutIntoItInWhateverOrder) {
  std::mt19937 engine(1);  // NOLINT(*-msc32-c,*-msc51-cpp): the same in each run
  const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
  for (int round = 0; round < 200; ++round) {
    const std::vector<Uuid> backups = {Uuid::generate(), Uuid::generate()};
    const auto any_pack = [&] {
      const std::uint32_t number = random() % 12 + (random() % 2 == 0 ? 0 : UINT32_MAX - 11);
      return PackName{random() % 2 == 0 ? PackKind::kData : PackKind::kTree,
                      backups[random() % backups.size()], number};
    };
    PackSet packs;
    std::set<PackName> expected;
    const std::uint32_t last = random() % 6;
    packs.insert_range({PackKind::kData, backups[0], 3}, 3 + last);
    for (std::uint32_t number = 3; number <= 3 + last; ++number)
      expected.insert({PackKind::kData, backups[0], number});
    for (unsigned i = random() % 60; i > 0; --i) {
      const PackName pack = any_pack();
      packs.insert(pack);
      expected.insert(pack);
    }
    for (int i = 0; i < 100; ++i) {
      const PackName pack = any_pack();
      ASSERT_EQ(packs.contains(pack), expected.contains(pack)) << to_string(pack);
    }
    std::vector<PackName> visited;
    packs.for_each([&](const PackName& pack) { visited.push_back(pack); });
    ASSERT_THAT(visited, testing::ElementsAreArray(expected));
    ASSERT_EQ(packs.empty(), expected.empty());
  }
}

TEST(PackSet, JoinsNeighbours) {
  const Uuid backup = Uuid::generate();
  PackSet packs;
  for (const std::uint32_t number : {7U, 9U, 8U, 11U, 12U, 10U})
    packs.insert({PackKind::kData, backup, number});
  EXPECT_THAT(packs.ranges(), testing::ElementsAre(testing::Pair(
                                  PackName{PackKind::kData, backup, 7}, std::uint32_t{12})));
}

}  // namespace
}  // namespace convoy
