#include "volumes/pool_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace convoy {
namespace {

TEST(PoolOptions, AreParsed) {
  const PoolOptions options =
      parse_pool_options({"dm.datadev=/dev/a", "dm.metadatadev=/dev/b", "dm.thinpoolname=pool",
                          "dm.thinpoolblocksize=128", "dm.defaultvolumesize=10G", "dm.fs=xfs"});
  EXPECT_EQ(options.data_device, "/dev/a");
  EXPECT_EQ(options.metadata_device, "/dev/b");
  EXPECT_EQ(options.pool_name, "pool");
  EXPECT_EQ(options.block_size, Sectors{128});
  EXPECT_EQ(options.default_volume_size, 10 * kGiB);
  EXPECT_EQ(options.filesystem, "xfs");
  EXPECT_FALSE(parse_pool_options({}).data_device);
}

TEST(PoolOptions, RefusedWordsAreNamedWithWhatWouldBeRight) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"dm.nonsense=1", "unknown driver option 'dm.nonsense'"},
      {"dm.datadev", "give KEY=VALUE"},
      {"dm.datadev=", "give KEY=VALUE"},
      {"dm.datadev=sdb", "absolute path"},
      {"dm.thinpoolblocksize=0", "from 128"},
      {"dm.thinpoolblocksize=127", "from 128"},
      {"dm.thinpoolblocksize=129", "multiple of 128"},
      {"dm.thinpoolblocksize=2097280", "to 2097152"},
      {"dm.thinpoolblocksize=2M", "512-byte sectors"},
      {"dm.thinpoolname=../x", "can't be the name"},
      {"dm.thinpoolname=control", "uses that name itself"},
      {"dm.defaultvolumesize=0", "give a size"},
      {"dm.defaultvolumesize=lots", "is not a size"},
      {"dm.fs=ntfs", "choose ext4 or xfs"},
  };
  for (const auto& [word, part] : cases) {
    try {
      parse_pool_options({word});
      ADD_FAILURE() << word << " was taken";
    } catch (const Error& error) {
      EXPECT_THAT(error.message(), testing::HasSubstr(part)) << word;
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << word;
    }
  }
  EXPECT_THROW(parse_pool_options({"dm.fs=xfs", "dm.fs=xfs"}), Error);
}

}  // namespace
}  // namespace convoy
