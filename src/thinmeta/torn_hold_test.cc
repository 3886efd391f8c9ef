#include "thinmeta/torn_hold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thinmeta/space_map.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

// A pool with a metadata snapshot.
class HeldImage : public TestImage {
 public:
  explicit HeldImage(unsigned references) {
    add_device(1, add_leaf({{0, mapping(1)}}));
    finish();
    held_ = hold();
    count(held_, references);
    // Those beside it make no difference.
    count(held_ - 1, references == 0 ? 1 : 0);
    count(held_ + 1, references == 0 ? 1 : 0);
  }

  std::uint64_t held() const { return held_; }
  void hold_at(std::uint64_t block) {
    at<DiskSuperblock>(kSuperblockNumber).held_root = block;
    seal_superblock();
  }
  void damage_bitmap() { at<DiskBlockHeader>(bitmap()).checksum = 0; }

 private:
  std::uint64_t held_;
};

constexpr std::uint64_t kUnknown = 0;

TEST(HalfTakenHold, IsOneThatNobodyCounts) {
  const HeldImage image(0);
  for (const std::uint64_t last : {kUnknown, image.held(), image.held() - 1})
    EXPECT_EQ(find_torn_hold(image.write().path(), last), TornHold::kHalfTaken);
}

TEST(HalfTakenHold, StaysOneWhenItsBlockGetsAnotherUse) {
  HeldImage image(1);
  const std::uint64_t leaf = image.held() - 1;
  image.count(leaf, 1);
  image.hold_at(leaf);
  const TestFile file = image.write(Place::kDisk);
  EXPECT_EQ(mend_torn_hold(file.path(), kUnknown), TornHold::kHalfTaken);
  image.hold_at(0);
  EXPECT_THAT(file.read(), testing::ElementsAreArray(image.bytes()));
}

TEST(HalfTakenHold, IsDroppedAndNothingElseChanges) {
  HeldImage image(0);
  const TestFile file = image.write(Place::kDisk);
  EXPECT_EQ(mend_torn_hold(file.path(), kUnknown), TornHold::kHalfTaken);
  image.hold_at(0);
  EXPECT_THAT(file.read(), testing::ElementsAreArray(image.bytes()));
  EXPECT_EQ(mend_torn_hold(file.path(), image.held()), TornHold::kNone);
}

TEST(HalfReleasedHold, IsOneThatIsCountedAndNotNamed) {
  HeldImage image(1);
  image.hold_at(0);
  const TestFile file = image.write();
  EXPECT_EQ(find_torn_hold(file.path(), image.held()), TornHold::kHalfReleased);
  EXPECT_EQ(find_torn_hold(file.path(), kUnknown), TornHold::kNone);
}

TEST(HalfReleasedHold, IsNamedAgainAndNothingElseChanges) {
  HeldImage image(1);
  const std::vector<std::byte> held(image.bytes().begin(), image.bytes().end());
  image.hold_at(0);
  const TestFile file = image.write(Place::kDisk);
  EXPECT_EQ(mend_torn_hold(file.path(), image.held()), TornHold::kHalfReleased);
  EXPECT_EQ(file.read(), held);
}

TEST(HalfReleasedHold, IsNoneWhoseBlockHasAnotherUse) {
  HeldImage image(1);
  image.hold_at(0);
  const std::uint64_t leaf = image.held() - 1;
  image.count(leaf, 1);
  const TestFile file = image.write();
  EXPECT_EQ(mend_torn_hold(file.path(), leaf), TornHold::kNone);
  EXPECT_EQ(mend_torn_hold(file.path(), 1'000'000), TornHold::kNone);
  image.count(image.held(), 0);  // free, and not used since
  EXPECT_EQ(mend_torn_hold(image.write().path(), image.held()), TornHold::kNone);
}

TEST(TornHold, IsNoneThatIsCountedAndNamed) {
  for (const unsigned references : {1U, 2U, 3U}) {
    const HeldImage image(references);
    const TestFile file = image.write();
    BlockReader reader(file.open());
    EXPECT_EQ(metadata_references(reader, read_superblock(reader).metadata_space_map, image.held()),
              references);
    EXPECT_EQ(mend_torn_hold(file.path(), image.held()), TornHold::kNone);
    EXPECT_THAT(file.read(), testing::ElementsAreArray(image.bytes()));
  }
}

TEST(TornHold, IsNotLookedForWhereNothingWasEverHeld) {
  HeldImage image(0);
  image.hold_at(0);
  image.damage_bitmap();
  EXPECT_EQ(mend_torn_hold(image.write().path(), kUnknown), TornHold::kNone);
}

TEST(TornHold, IsNotToldOfDamagedMetadata) {
  HeldImage image(0);
  image.damage_bitmap();
  const TestFile file = image.write();
  try {
    mend_torn_hold(file.path(), kUnknown);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.what(), testing::HasSubstr("bitmap 0 of the metadata space map"));
  }
  EXPECT_THAT(file.read(), testing::ElementsAreArray(image.bytes()));
  // One beyond the end is none that was ever taken.
  image.hold_at(1'000'000);
  EXPECT_EQ(find_torn_hold(image.write().path(), kUnknown), TornHold::kHalfTaken);
}

}  // namespace
}  // namespace convoy::thinmeta
