#include "volumes/pool_space.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace convoy {
namespace {

using ::testing::HasSubstr;

PoolStatus used(std::uint64_t data, std::uint64_t metadata) {
  PoolStatus status;
  status.total_data.count = 1000;
  status.used_data.count = data;
  status.total_metadata_blocks = 1000;
  status.used_metadata_blocks = metadata;
  return status;
}

TEST(PoolSpace, IsWarnedOfFromTheLowWaterMarkOn) {
  EXPECT_EQ(examine_space(used(799, 0), 80).level, SpaceLevel::kEnough);
  EXPECT_EQ(examine_space(used(800, 0), 80).level, SpaceLevel::kLow);
  EXPECT_EQ(examine_space(used(0, 800), 80).level, SpaceLevel::kLow);
  EXPECT_EQ(examine_space(used(949, 949), 80).level, SpaceLevel::kLow);
  EXPECT_EQ(examine_space(used(10, 0), 1).level, SpaceLevel::kLow);
  EXPECT_EQ(examine_space(PoolStatus(), 1).level, SpaceLevel::kEnough);
}

TEST(PoolSpace, TellsOfTheFullerDevice) {
  EXPECT_EQ(examine_space(used(831, 100), 80).used, "83 percent of the data device are used");
  EXPECT_EQ(examine_space(used(831, 900), 80).used, "90 percent of the metadata device are used");
}

TEST(PoolSpace, IsRefusedToNewVolumesWhenLittleIsLeft) {
  EXPECT_NO_THROW(require_room(used(949, 949)));
  for (const PoolStatus& status : {used(950, 0), used(0, 950), used(1000, 1000)}) {
    try {
      require_room(status);
      ADD_FAILURE() << "it is not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kNoSpace);
      EXPECT_THAT(error.what(), HasSubstr("convoy pool grow"));
    }
  }
}

}  // namespace
}  // namespace convoy
