// What differs between two devices, and what is read to find it.
#include "thinmeta/delta.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thinmeta/test_image.h"
#include "thinmeta/test_tree.h"

namespace convoy::thinmeta {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

DeltaRange range(std::uint64_t begin, std::uint64_t end, Change change) {
  return {{begin}, {end}, change};
}

// Devices 1 and 2 with these leaves as their whole trees.
Metadata two_leaves(const TestImage::Entries& first, const TestImage::Entries& second) {
  TestImage image;
  image.add_device(1, image.add_leaf(first));
  image.add_device(2, image.add_leaf(second));
  image.finish();
  return image.open();
}

TEST(Delta, SaysWhatWasAddedRemovedAndChanged) {
  Metadata metadata = two_leaves({{0, mapping(10)}, {1, mapping(11)}, {7, mapping(12)}},
                                 {{1, mapping(11)}, {5, mapping(20)}, {7, mapping(21)}});
  EXPECT_THAT(delta_of(metadata, 1, 2),
              ElementsAre(range(0, 1, Change::kRemoved), range(5, 6, Change::kAdded),
                          range(7, 8, Change::kDifferent)));
}

TEST(Delta, MergesNeighboursOfTheSameChangeOnly) {
  Metadata metadata = two_leaves(
      {{0, mapping(1)}, {1, mapping(2)}, {4, mapping(3)}, {5, mapping(4)}, {7, mapping(5)}},
      {{2, mapping(6)}, {3, mapping(7)}, {4, mapping(8)}, {5, mapping(9)}});
  EXPECT_THAT(delta_of(metadata, 1, 2),
              ElementsAre(range(0, 2, Change::kRemoved), range(2, 4, Change::kAdded),
                          range(4, 6, Change::kDifferent), range(7, 8, Change::kRemoved)));
}

TEST(Delta, IgnoresWhenABlockWasMapped) {
  Metadata metadata = two_leaves({{3, mapping(9, 1)}}, {{3, mapping(9, 2)}});
  EXPECT_THAT(delta_of(metadata, 1, 2), IsEmpty());
}

TEST(Delta, OfNoFirstDeviceIsWhatTheSecondMaps) {
  Metadata metadata = two_leaves({}, {{3, mapping(9)}, {4, mapping(1)}, {8, mapping(7)}});
  EXPECT_THAT(delta_of(metadata, std::nullopt, 2),
              ElementsAre(range(3, 5, Change::kAdded), range(8, 9, Change::kAdded)));
  EXPECT_EQ(delta_of(metadata, 1, 2), delta_of(metadata, std::nullopt, 2));
  EXPECT_THAT(delta_of(metadata, std::nullopt, 1), IsEmpty());
  EXPECT_THAT(delta_of(metadata, 2, 1),
              ElementsAre(range(3, 5, Change::kRemoved), range(8, 9, Change::kRemoved)));
}

TEST(Delta, TakesTheLargestBlockAndDataBlock) {
  const std::uint64_t last = ~std::uint64_t{0} / (64 * kKiB) - 1;
  Metadata metadata =
      two_leaves({{last, mapping(1)}}, {{last, mapping(TestImage::kDataBlocks - 1)}});
  EXPECT_THAT(delta_of(metadata, 1, 2), ElementsAre(range(last, last + 1, Change::kDifferent)));
}

TEST(Delta, EndsWhenTheVisitorThrowsAndCanBeAskedAgain) {
  Metadata metadata = two_leaves({}, {{3, mapping(9)}, {8, mapping(7)}});
  EXPECT_THROW(
      metadata.delta(1, 2, [](const DeltaRange&) { throw Error(ErrorKind::kCancelled, "enough"); }),
      Error);
  EXPECT_EQ(delta_of(metadata, 1, 2).size(), 2U);
}

TEST(Delta, OfADeviceThatIsNotThereIsNotFound) {
  Metadata metadata = two_leaves({}, {});
  for (const auto& [first, second] :
       {std::pair{1U, 3U}, std::pair{3U, 1U}, std::pair{1U, 1U << 24U}}) {
    try {
      delta_of(metadata, first, second);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    }
  }
}

// --- What is read --------------------------------------------------------------------------------

// Blocks that a walk reads when none is in memory yet, beside the one that gives the devices'
// roots.
std::uint64_t reads_of_delta(const TestImage& image, std::uint32_t first, std::uint32_t second) {
  Metadata metadata = image.open();
  const std::uint64_t before = metadata.blocks_read();
  delta_of(metadata, first, second);
  return metadata.blocks_read() - before - 1;
}

TEST(SharedSubtrees, OfASnapshotWithoutChangesAreNotEvenOpened) {
  TestImage image;
  const std::uint64_t root = image.add_leaf({{0, mapping(1)}});
  image.add_device(1, root);
  image.add_device(2, root);
  image.finish();
  EXPECT_EQ(reads_of_delta(image, 1, 2), 0U);
}

TEST(SharedSubtrees, AreNotRead) {
  TestImage image;
  std::mt19937_64 random(1);
  TestTree tree(image, {84, 252}, random);
  Mappings mappings;
  for (std::uint64_t block = 0; block < 100'000; ++block) mappings[block] = mapping(block);
  tree.update(mappings);
  image.add_device(1, tree.root());
  TestTree changed = tree;
  mappings[50'000] = mapping(500'000);
  changed.update(mappings);
  image.add_device(2, changed.root());
  image.finish();

  ASSERT_EQ(tree.height(), 3U);
  ASSERT_GT(tree.nodes().size(), 400U);
  // Nothing can be read of a shared node, but on the way down to the first leaf, which tells the
  // height.
  for (const std::uint64_t block : tree.nodes()) {
    if (changed.nodes().contains(block) && !tree.leftmost().contains(block)) {
      image.at<DiskBlockHeader>(block).checksum = 0;
    }
  }
  Metadata metadata = image.open();
  EXPECT_THAT(delta_of(metadata, 1, 2), ElementsAre(range(50'000, 50'001, Change::kDifferent)));
  // Of both trees the root, the inner node and the leaf; and the way to the first leaf below the
  // root, which they share.
  EXPECT_EQ(reads_of_delta(image, 1, 2), 2U * 3 + 2);
}

// The tree of device 2 is higher by one level, and has the whole tree of device 1 in it.
TEST(SharedSubtrees, AreFoundInTreesOfDifferentHeights) {
  TestImage image;
  std::vector<std::uint64_t> leaves;
  leaves.reserve(4);
  for (std::uint64_t i = 0; i < 4; ++i) {
    leaves.push_back(image.add_leaf({{10 * i + 2, mapping(i)}, {10 * i + 3, mapping(100 + i)}}));
  }
  const std::uint64_t low = image.add_inner({{2, leaves[0]}, {10, leaves[1]}, {20, leaves[2]}});
  const std::uint64_t high = image.add_inner({{1, low}, {30, image.add_inner({{31, leaves[3]}})}});
  image.add_device(1, low);
  image.add_device(2, high);
  image.finish();
  image.at<DiskBlockHeader>(leaves[1]).checksum = 0;
  image.at<DiskBlockHeader>(leaves[2]).checksum = 0;

  Metadata metadata = image.open();
  EXPECT_THAT(delta_of(metadata, 1, 2), ElementsAre(range(32, 34, Change::kAdded)));
  EXPECT_THAT(delta_of(metadata, 2, 1), ElementsAre(range(32, 34, Change::kRemoved)));
  // high, its second child and that one's leaf; low and the first leaf, for the heights of both
  // trees.
  EXPECT_EQ(reads_of_delta(image, 1, 2), 3U + 2);
}

// The leaf is the second child in one tree and the first of a second inner node in the other.
TEST(SharedSubtrees, AreFoundUnderOtherParentsAndWithOtherLowestKeys) {
  TestImage image;
  const std::uint64_t shared = image.add_leaf({{20, mapping(1)}});
  const std::uint64_t left = image.add_leaf({{3, mapping(2)}});
  const std::uint64_t right = image.add_leaf({{50, mapping(3)}});
  image.add_device(1,
                   image.add_inner({{0, image.add_inner({{0, left}, {20, shared}, {50, right}})}}));
  image.add_device(2,
                   image.add_inner({{0, image.add_inner({{0, image.add_leaf({{3, mapping(4)}})}})},
                                    {15, image.add_inner({{17, shared}, {30, right}})}}));
  image.finish();
  image.at<DiskBlockHeader>(shared).checksum = 0;
  image.at<DiskBlockHeader>(right).checksum = 0;

  Metadata metadata = image.open();
  EXPECT_THAT(delta_of(metadata, 1, 2), ElementsAre(range(3, 4, Change::kDifferent)));
  EXPECT_THAT(delta_of(metadata, 2, 1), ElementsAre(range(3, 4, Change::kDifferent)));
}

// As a snapshot and its volume are after writes here and there: each of many inner nodes leads to
// one leaf that differs.
TEST(Delta, ReadsScatteredChangesTogether) {
  constexpr std::uint64_t kInner = 40, kLeaves = 20;
  TestImage image;
  using Children = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  Children first_inner, second_inner;
  for (std::uint64_t i = 0; i < kInner; ++i) {
    const std::uint64_t begin = i * kLeaves;
    Children leaves;
    for (std::uint64_t key = begin; key < begin + kLeaves; ++key)
      leaves.emplace_back(key, image.add_leaf({{key, mapping(key)}}));
    first_inner.emplace_back(begin, image.add_inner(leaves));
    const std::uint64_t changed = begin + i % (kLeaves - 1);
    leaves[i % (kLeaves - 1)].second = image.add_leaf({{changed, mapping(changed + 10'000)}});
    second_inner.emplace_back(begin, image.add_inner(leaves));
  }
  image.add_device(1, image.add_inner(first_inner));
  image.add_device(2, image.add_inner(second_inner));
  image.finish();
  Metadata metadata = image.open();
  const std::uint64_t blocks = metadata.blocks_read();
  const std::uint64_t round_trips = metadata.round_trips();
  EXPECT_EQ(delta_of(metadata, 1, 2).size(), kInner);
  EXPECT_GE(metadata.blocks_read() - blocks, 4 * kInner);
  // The way down to the first leaf of each tree, and two for all others.
  EXPECT_LE(metadata.round_trips() - round_trips, 10U);
}

// --- Random histories ----------------------------------------------------------------------------

// Versions of a volume, as snapshots of it: every two are compared. The seed is the test's
// parameter.
class RandomHistory : public testing::TestWithParam<unsigned> {};

TEST_P(RandomHistory, GivesWhatItsMappingsSayAndReadsOnlyWhatIsNotShared) {
  std::mt19937_64 random(GetParam());
  const Fanout fanouts[] = {{2, 4}, {2, 9}, {3, 30}, {84, 252}};
  const Fanout fanout = fanouts[GetParam() % 4];
  const std::uint64_t device_blocks = GetParam() % 4 == 3 ? 20'000 : 300;

  TestImage image;
  Mappings mappings;
  TestTree tree(image, fanout, random);
  std::vector<Mappings> versions;
  std::vector<TestTree> trees;
  std::uint64_t next_data_block = 0;
  for (std::uint32_t thin_id = 0; thin_id < 6; ++thin_id) {
    change_randomly(mappings, device_blocks, next_data_block, thin_id, random);
    tree.update(mappings);
    image.add_device(thin_id, tree.root());
    versions.push_back(mappings);
    trees.push_back(tree);
  }
  image.finish();

  const TestFile file = image.write();
  for (std::uint32_t first = 0; first < versions.size(); ++first) {
    Metadata whole(file.open(), Root::kLive);
    EXPECT_EQ(delta_of(whole, std::nullopt, first), expected_delta({}, versions[first]));
    for (std::uint32_t second = 0; second < versions.size(); ++second) {
      SCOPED_TRACE(testing::Message() << "devices " << first << " and " << second);
      Metadata metadata(file.open(), Root::kLive);
      const std::uint64_t before = metadata.blocks_read();
      EXPECT_EQ(delta_of(metadata, first, second),
                expected_delta(versions[first], versions[second]));
      // What is in memory by now makes no difference.
      EXPECT_EQ(delta_of(whole, first, second), expected_delta(versions[first], versions[second]));

      std::set<std::uint64_t> unshared;
      const auto first_nodes = trees[first].nodes();
      const auto second_nodes = trees[second].nodes();
      std::ranges::set_symmetric_difference(first_nodes, second_nodes,
                                            std::inserter(unshared, unshared.end()));
      EXPECT_LE(metadata.blocks_read() - before,
                1 + unshared.size() + trees[first].height() + trees[second].height());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomHistory, testing::Range(0U, 32U));

}  // namespace
}  // namespace convoy::thinmeta
