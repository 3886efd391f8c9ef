#include "thinmeta/half_taken_hold.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "thinmeta/space_map.h"
#include "thinmeta/test_image.h"

namespace convoy::thinmeta {
namespace {

// A pool with a metadata snapshot.
class HeldImage : public TestImage {
 public:
  explicit HeldImage(unsigned references = 0) {
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

TEST(HalfTakenHold, IsOneThatNobodyCounts) {
  const HeldImage held;
  const TestFile file = held.write();
  EXPECT_TRUE(has_half_taken_hold(file.path()));
}

TEST(HalfTakenHold, IsDroppedAndNothingElseChanges) {
  HeldImage held;
  const TestFile file = held.write(Place::kDisk);
  EXPECT_TRUE(drop_half_taken_hold(file.path()));
  held.hold_at(0);
  EXPECT_THAT(file.read(), testing::ElementsAreArray(held.bytes()));
  EXPECT_FALSE(drop_half_taken_hold(file.path()));
}

TEST(HalfTakenHold, IsNoneThatIsCounted) {
  for (const unsigned references : {1U, 2U, 3U}) {
    const HeldImage held(references);
    const TestFile file = held.write();
    BlockReader reader(file.open());
    EXPECT_EQ(metadata_references(reader, read_superblock(reader).metadata_space_map, held.held()),
              references);
    EXPECT_FALSE(drop_half_taken_hold(file.path()));
    EXPECT_THAT(file.read(), testing::ElementsAreArray(held.bytes()));
  }
}

TEST(HalfTakenHold, IsNoneWhereNothingIsHeld) {
  HeldImage held;
  held.hold_at(0);
  held.damage_bitmap();  // which is not even read
  EXPECT_FALSE(drop_half_taken_hold(held.write().path()));
}

TEST(HalfTakenHold, IsNotToldOfDamagedMetadata) {
  HeldImage held;
  held.damage_bitmap();
  const TestFile file = held.write();
  try {
    drop_half_taken_hold(file.path());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.what(), testing::HasSubstr("bitmap 0 of the metadata space map"));
  }
  EXPECT_THAT(file.read(), testing::ElementsAreArray(held.bytes()));
  // Nor of one whose superblock points beyond the end.
  held.hold_at(1'000'000);
  EXPECT_THROW(has_half_taken_hold(held.write().path()), Error);
}

}  // namespace
}  // namespace convoy::thinmeta
