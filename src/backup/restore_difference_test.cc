// Restoring onto what is there.
#include <atomic>

#include <sys/stat.h>

#include "backup/backup_testing.h"

namespace convoy {
namespace {

class RestoreDifferenceTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kSize = 20 * kMiB + 512;
  static constexpr std::uint64_t kBlock = 256 * kKiB;

  RestoreDifferenceTest() {
    device_.write(0, noise(1, 3 * kMiB));
    device_.write(7 * kMiB + 4096, noise(2, kMiB));
    device_.write(kSize - 1000, noise(3, 1000));
    record_ = back_up_all(device_);
  }

  // Restores onto `target`, and says how many bytes of chunks came from the store.
  std::uint64_t restore_onto(const TestDevice& target, std::uint64_t block = kBlock) {
    std::atomic<std::uint64_t> fetched = 0;
    objects_.hook = [&](MemoryStore::Call call, const std::string& key) {
      if (call == MemoryStore::Call::kGetRange && key.ends_with(".data")) ++fetched;
    };
    restore_difference(store_, record_, target.fd(), block, {}, {});
    objects_.hook = nullptr;
    EXPECT_TRUE(target.content() == expected_.at(record_.info.uuid));
    return fetched;
  }

  TestDevice device_{kSize};
  BackupRecord record_;
};

TEST_F(RestoreDifferenceTest, FetchesNothingOfWhatIsThere) {
  EXPECT_EQ(restore_onto(device_), 0U);
}

TEST_F(RestoreDifferenceTest, MakesEveryContentTheBackups) {
  for (const std::uint64_t block : {64 * kKiB, kBlock, 2 * kMiB, 16 * kMiB, 64 * kMiB}) {
    TestDevice empty(kSize);
    EXPECT_GT(restore_onto(empty, block), 0U);
    TestDevice full(kSize);
    full.write(0, noise(9, kSize));
    EXPECT_GT(restore_onto(full, block), 0U);
    TestDevice similar(kSize);
    similar.write(0, device_.content());
    similar.write(kMiB, noise(8, 100));
    similar.write(5 * kMiB + 512, noise(7, 300));
    similar.write(kSize - 512, noise(6, 512));
    similar.zero(7 * kMiB + 64 * kKiB, 8 * kKiB);
    EXPECT_GT(restore_onto(similar, block), 0U);
  }
}

TEST_F(RestoreDifferenceTest, RefusesADeviceOfAnotherSize) {
  for (const std::uint64_t size : {kSize - 512, kSize + 512}) {
    const TestDevice target(size);
    EXPECT_EQ(
        error_of([&] { restore_difference(store_, record_, target.fd(), kBlock, {}, {}); }).kind(),
        ErrorKind::kInvalidArgument);
  }
}

TEST_F(RestoreDifferenceTest, OfAnEmptyBackupDiscardsAll) {
  TestDevice empty(kSize);
  record_ = back_up_all(empty);
  TestDevice full(kSize);
  full.write(0, noise(9, kSize));
  EXPECT_EQ(restore_onto(full), 0U);
  struct stat info = {};
  ASSERT_EQ(::fstat(full.fd(), &info), 0);
  EXPECT_LT(static_cast<std::uint64_t>(info.st_blocks) * 512, kBlock);
}

}  // namespace
}  // namespace convoy
