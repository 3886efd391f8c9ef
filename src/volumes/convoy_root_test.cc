#include "volumes/convoy_root.h"

#include <cstdlib>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace convoy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kPool = R"({
  "Root": "/var/lib/rancher/convoy/devicemapper", "DataDevice": "/dev/loop0",
  "MetadataDevice": "/dev/loop1", "ThinpoolDevice": "/dev/mapper/convoy-pool",
  "ThinpoolSize": 107374182400, "ThinpoolBlockSize": 4096, "DefaultVolumeSize": 107374182400,
  "LastDevID": 5, "Filesystem": "ext4"})";

constexpr const char* kVolume = R"({
  "Name": "db", "DevID": 1, "Size": 1073741824, "Base": "", "MountPoint": "/mnt/db",
  "CreatedTime": "Mon Nov 23 00:13:37 +0000 2026", "Filesystem": "xfs",
  "Snapshots": {
    "s1": {"Name": "s1", "CreatedTime": "Mon Nov 23 01:13:37 +0000 2026", "DevID": 2, "Activated": true},
    "s2": {"Name": "s2", "CreatedTime": "", "DevID": 3, "Activated": false}}})";

class ConvoyRootTest : public testing::Test {
 protected:
  ConvoyRootTest() {
    std::filesystem::create_directory(root_ / "devicemapper");
    write("devicemapper/devicemapper.cfg", kPool);
  }
  ~ConvoyRootTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& file, const std::string& text) {
    std::ofstream(root_ / file) << text;
  }
  void write_volume(const std::string& name, const std::string& text) {
    write("devicemapper/devicemapper_volume_" + name + ".json", text);
  }

  std::string refusal(const std::string& pool) {
    write("devicemapper/devicemapper.cfg", pool);
    try {
      read_convoy_root(root_);
    } catch (const Error& error) {
      return error.message();
    }
    return "";
  }

  std::vector<std::string> files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root_))
      if (entry.is_regular_file()) names.push_back(entry.path().filename());
    std::ranges::sort(names);
    return names;
  }

  std::filesystem::path root_ = [] {
    std::string name = (std::filesystem::temp_directory_path() / "convoy-root-XXXXXX").native();
    return std::filesystem::path(mkdtemp(name.data()));
  }();
};

TEST_F(ConvoyRootTest, TellsWhatOfTheSettingsIsLost) {
  write("convoy.cfg", R"({"DriverList": ["devicemapper", "vfs"], "CmdTimeout": "5m0s"})");
  EXPECT_THAT(read_convoy_root(root_).left_out,
              ElementsAre("volumes of the driver 'vfs', which is none of ours",
                          "the CmdTimeout of 5m0s: give it as --cmd-timeout"));
  write("convoy.cfg", R"({"DriverList": ["devicemapper"], "CmdTimeout": "2m0s"})");
  EXPECT_THAT(read_convoy_root(root_).left_out, ElementsAre());
}

TEST_F(ConvoyRootTest, IsRead) {
  write_volume("db", kVolume);
  const Timestamp changed{std::chrono::hours(24)};
  std::filesystem::last_write_time(root_ / "devicemapper/devicemapper_volume_db.json",
                                   std::chrono::file_clock::from_sys(changed));
  ASSERT_TRUE(has_convoy_pool(root_));
  const ConvoyRoot convoy = read_convoy_root(root_);
  EXPECT_EQ(convoy.pool.name, "convoy-pool");
  EXPECT_EQ(convoy.pool.data_device, "/dev/loop0");
  EXPECT_EQ(convoy.pool.data_size, 100 * kGiB);
  EXPECT_EQ(convoy.pool.metadata_device, "/dev/loop1");
  EXPECT_EQ(convoy.pool.block_size, Sectors{4096});
  EXPECT_EQ(convoy.pool.default_size, 100 * kGiB);
  EXPECT_EQ(convoy.pool.default_filesystem, "ext4");
  EXPECT_EQ(convoy.pool.last_thin_id, 5U);

  ASSERT_EQ(convoy.volumes.size(), 1U);
  const ConvoyVolume& volume = convoy.volumes.front();
  EXPECT_EQ(volume.name, "db");
  EXPECT_EQ(volume.thin_id, 1U);
  EXPECT_EQ(volume.size, kGiB);
  EXPECT_EQ(volume.mountpoint, "/mnt/db");
  EXPECT_EQ(volume.filesystem, "xfs");
  EXPECT_EQ(format_for_user(volume.created), "Mon Nov 23 00:13:37 +0000 2026");
  ASSERT_EQ(volume.snapshots.size(), 2U);
  EXPECT_EQ(volume.snapshots[0].name, "s1");
  EXPECT_EQ(volume.snapshots[0].thin_id, 2U);
  EXPECT_EQ(format_for_user(volume.snapshots[0].created), "Mon Nov 23 01:13:37 +0000 2026");
  EXPECT_EQ(volume.snapshots[1].created, changed);
  EXPECT_THAT(convoy.left_out, ElementsAre());
}

TEST_F(ConvoyRootTest, NumbersMayBeText) {
  write("devicemapper/devicemapper.cfg", R"({
    "DataDevice": "/dev/a", "MetadataDevice": "/dev/b", "ThinpoolDevice": "/dev/mapper/pool",
    "ThinpoolSize": "1048576", "ThinpoolBlockSize": "128", "DefaultVolumeSize": "65536",
    "LastDevID": "9"})");
  const ConvoyPool pool = read_convoy_root(root_).pool;
  EXPECT_EQ(pool.data_size, kMiB);
  EXPECT_EQ(pool.block_size, Sectors{128});
  EXPECT_EQ(pool.last_thin_id, 9U);
  EXPECT_EQ(pool.default_filesystem, "");
}

TEST_F(ConvoyRootTest, APoolThatCanNotBeReadIsRefusedWithItsFilesName) {
  EXPECT_THAT(refusal(""), HasSubstr("devicemapper.cfg: is empty"));
  EXPECT_THAT(refusal("[]"), HasSubstr("devicemapper.cfg: is no JSON object"));
  EXPECT_THAT(refusal(R"({"ThinpoolDevice": 1})"), HasSubstr("ThinpoolDevice is no text"));
  EXPECT_THAT(refusal("{}"), HasSubstr("ThinpoolSize is no number"));
  EXPECT_THAT(refusal(R"({"ThinpoolSize": -1})"), HasSubstr("ThinpoolSize is no number"));
  EXPECT_THAT(refusal(R"({"ThinpoolSize": "10G"})"), HasSubstr("ThinpoolSize is no number"));
  EXPECT_THAT(refusal(R"({"ThinpoolSize": 1, "ThinpoolBlockSize": 129})"),
              HasSubstr("can't have blocks of 129 sectors"));
}

TEST_F(ConvoyRootTest, WhatCanNotBeReadOfAVolumeIsNamedAndTheOthersAreRead) {
  write_volume("cut", "");
  write_volume("db", kVolume);
  write_volume("large", R"({"Name": "large", "DevID": 16777216, "Size": 1})");
  write_volume("half", R"({"Name": "half", "DevID": 7, "Size": 1,
                           "Snapshots": {"good": {"DevID": 8}, "bad": {}, "worse": 1}})");
  const ConvoyRoot convoy = read_convoy_root(root_);
  ASSERT_EQ(convoy.volumes.size(), 2U);
  EXPECT_EQ(convoy.volumes[0].name, "db");
  EXPECT_EQ(convoy.volumes[1].name, "half");
  ASSERT_EQ(convoy.volumes[1].snapshots.size(), 1U);
  EXPECT_EQ(convoy.volumes[1].snapshots[0].name, "good");
  EXPECT_THAT(convoy.left_out,
              ElementsAre(HasSubstr("devicemapper_volume_cut.json: is empty"),
                          HasSubstr("snapshot 'bad' of volume 'half': the field DevID"),
                          HasSubstr("snapshot 'worse' of volume 'half'"),
                          HasSubstr("devicemapper_volume_large.json: the field DevID")));
}

TEST_F(ConvoyRootTest, FilesAreRenamedOnceAndNoneIsReplaced) {
  write("convoy.cfg", "{}");
  write_volume("db", kVolume);
  rename_convoy_files(root_);
  rename_convoy_files(root_);
  EXPECT_FALSE(has_convoy_pool(root_));
  EXPECT_THAT(files(), ElementsAre("convoy.cfg.taken-over", "devicemapper.cfg.taken-over",
                                   "devicemapper_volume_db.json.taken-over"));
  write("devicemapper/devicemapper.cfg", kPool);
  EXPECT_THROW(rename_convoy_files(root_), Error);
}

TEST(ConvoyTime, IsReadInTheFormsThatGoPrints) {
  const auto shown = [](const char* text) {
    const std::optional<Timestamp> time = parse_convoy_time(text);
    return time ? format_for_user(*time) : "";
  };
  EXPECT_EQ(shown("Mon Nov 23 00:13:37 +0000 2026"), "Mon Nov 23 00:13:37 +0000 2026");
  EXPECT_EQ(shown("Mon Nov 23 01:13:37 +0100 2026"), "Mon Nov 23 00:13:37 +0000 2026");
  EXPECT_EQ(shown("2026-11-23T00:13:37Z"), "Mon Nov 23 00:13:37 +0000 2026");
  EXPECT_EQ(shown("2026-11-23T08:13:37+08:00"), "Mon Nov 23 00:13:37 +0000 2026");
  for (const char* text : {"", "soon", "Mon Nov 23", "0001-01-01T00:00:00Z",
                           "Mon Nov 23 00:13:37 +0000 2026 and more"}) {
    EXPECT_EQ(shown(text), "") << text;
  }
}

}  // namespace
}  // namespace convoy
