#include "sys/mount_namespace.h"

#include <algorithm>

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include "base/error.h"

namespace convoy {
namespace {

TEST(Mountinfo, GivesDeviceRootAndTarget) {
  const auto mounts = parse_mountinfo(
      "22 1 98:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
      "36 35 253:7 /sub /mnt/vol1 rw master:1 - xfs /dev/mapper/vol1 rw,nouuid\n");
  ASSERT_EQ(mounts.size(), 2U);
  EXPECT_EQ(mounts[0].device, makedev(98, 0));
  EXPECT_EQ(mounts[1].device, makedev(253, 7));
  EXPECT_EQ(mounts[1].root, "/sub");
  EXPECT_EQ(mounts[1].target, "/mnt/vol1");
}

TEST(Mountinfo, UndoesTheKernelsEscapes) {
  const auto mounts = parse_mountinfo("36 35 8:1 / /a\\040b\\134c rw - ext4 /dev/sda1 rw\n");
  ASSERT_EQ(mounts.size(), 1U);
  EXPECT_EQ(mounts[0].target, "/a b\\c");
}

TEST(Mountinfo, LeavesOutWhatIsNotALine) {
  EXPECT_TRUE(parse_mountinfo("").empty());
  EXPECT_TRUE(parse_mountinfo("36 35 8-1 / / rw - ext4 /dev/sda1 rw\n\nshort line\n").empty());
}

TEST(MountNamespace, KnowsWhatIsMountedHere) {
  const std::vector<Mount> mounts = MountNamespace("").mounts();
  // Not "/": in a chroot that is no mount.
  EXPECT_TRUE(
      std::ranges::any_of(mounts, [](const Mount& mount) { return mount.target == "/proc"; }));
}

TEST(MountNamespace, RefusesAFileThatIsNone) {
  EXPECT_THROW(MountNamespace("/etc/passwd"), Error);
}

TEST(ParseMountOptions, TellsTheKernelsFlagsFromTheFileSystemsText) {
  const MountOptions options = parse_mount_options("noatime,data=writeback,ro,nouuid,nofail");
  EXPECT_EQ(options.flags, static_cast<unsigned long>(MS_NOATIME | MS_RDONLY));
  EXPECT_EQ(options.data, "data=writeback,nouuid");
  EXPECT_EQ(parse_mount_options("").flags, 0U);
  EXPECT_EQ(parse_mount_options("").data, "");
}

}  // namespace
}  // namespace convoy
