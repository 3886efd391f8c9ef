#include "volumes/filesystem.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace convoy {
namespace {

using testing::ElementsAre;

constexpr const char* kExtended = "nodiscard,assume_storage_prezeroed=1,packed_meta_blocks=1";

TEST(MkfsCommand, OfExt4PutsTheUsersExtendedOptionsBehindOurs) {
  EXPECT_THAT(mkfs_command("ext4", ""), ElementsAre("mkfs.ext4", "-q", "-F", "-E", kExtended));
  // mke2fs obeys only the last -E: ours would be gone.
  EXPECT_THAT(
      mkfs_command("ext4", "-m 0  -E stride=16 -Estripe_width=64 -L name"),
      ElementsAre("mkfs.ext4", "-q", "-F", "-E",
                  std::string(kExtended) + ",stride=16,stripe_width=64", "-m", "0", "-L", "name"));
  EXPECT_THAT(mkfs_command("ext4", "-E"),
              ElementsAre("mkfs.ext4", "-q", "-F", "-E", std::string(kExtended) + ","));
}

TEST(MkfsCommand, OfXfsHasASmallLogUnlessTheUserSaysElse) {
  EXPECT_THAT(mkfs_command("xfs", "-m reflink=0"),
              ElementsAre("mkfs.xfs", "-q", "-f", "-K", "-l", "size=64m", "-m", "reflink=0"));
  EXPECT_THAT(mkfs_command("xfs", "-l size=100m"),
              ElementsAre("mkfs.xfs", "-q", "-f", "-K", "-l", "size=100m"));
}

}  // namespace
}  // namespace convoy
