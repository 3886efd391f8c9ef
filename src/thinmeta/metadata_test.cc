// Which thin devices there are.
#include "thinmeta/metadata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/limits.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr DeviceDetails kDetails = {
    .mapped_blocks = 12, .transaction_id = 34, .creation_time = 56, .snapshotted_time = 78};

TEST(Devices, OfANewPoolAreNone) {
  Metadata metadata = TestImage().open();
  EXPECT_THAT(metadata.devices(), IsEmpty());
  EXPECT_EQ(metadata.find_device(0), std::nullopt);
}

TEST(Devices, AreFoundWithTheirDetails) {
  TestImage image;
  const std::uint64_t root = image.add_leaf({});
  for (const std::uint32_t thin_id : {0U, 7U, kMaxThinId})
    image.add_device(thin_id, root, kDetails);
  image.finish();
  Metadata metadata = image.open();
  EXPECT_THAT(metadata.devices(),
              ElementsAre(Pair(0U, kDetails), Pair(7U, kDetails), Pair(kMaxThinId, kDetails)));
  EXPECT_EQ(metadata.find_device(7), kDetails);
  EXPECT_EQ(metadata.find_device(kMaxThinId), kDetails);
  for (const std::uint32_t thin_id : {1U, 8U, kMaxThinId - 1, kMaxThinId + 1, ~0U}) {
    EXPECT_EQ(metadata.find_device(thin_id), std::nullopt) << thin_id;
  }
}

TEST(Devices, AreFoundInTreesOfSeveralLevels) {
  TestImage image;
  const std::uint64_t mappings = image.add_leaf({{1, mapping(2)}});
  TestImage::Entries roots;
  TestImage::Entries details;
  for (std::uint32_t leaf = 0; leaf < 40; ++leaf) {
    std::map<std::uint64_t, DiskDeviceDetails> leaf_details;
    TestImage::Entries leaf_roots;
    for (std::uint32_t i = 0; i < 50; ++i) {
      const std::uint32_t thin_id = 100 * leaf + 2 * i + 1;
      leaf_details[thin_id].mapped_blocks = thin_id;
      leaf_roots.emplace_back(thin_id, mappings);
    }
    details.emplace_back(100 * leaf, image.add_node<DiskDeviceDetails>(kLeafNode, leaf_details));
    roots.emplace_back(100 * leaf, image.add_leaf(leaf_roots));
  }
  image.set_roots(image.add_inner(roots), image.add_inner(details));

  Metadata metadata = image.open();
  EXPECT_EQ(metadata.devices().size(), 2000U);
  for (std::uint32_t thin_id = 1; thin_id < 4000; thin_id += 14) {
    ASSERT_TRUE(metadata.find_device(thin_id)) << thin_id;
    EXPECT_EQ(metadata.find_device(thin_id)->mapped_blocks, thin_id);
    EXPECT_EQ(metadata.find_device(thin_id - 1), std::nullopt);
  }
  EXPECT_EQ(delta_of(metadata, std::nullopt, 3999).size(), 1U);
  EXPECT_THROW(delta_of(metadata, std::nullopt, 4000), Error);
}

TEST(Devices, AreReadWithoutChangingAnything) {
  TestImage image;
  image.add_device(1, image.add_leaf({{0, mapping(1)}}));
  image.finish();
  const TestFile file = image.write(Place::kDisk);
  Metadata metadata(BlockDevice::open(file.path(), Access::kReadWrite), Root::kLive);
  metadata.devices();
  delta_of(metadata, std::nullopt, 1);
  EXPECT_TRUE(std::ranges::equal(file.read(), image.bytes()));
}

}  // namespace
}  // namespace convoy::thinmeta
