// How a restore goes about it. That it restores what was backed up, all tests of backups show.
#include "backup/restore_backup.h"

#include <atomic>

#include "backup/backup_testing.h"

namespace convoy {
namespace {

using testing::HasSubstr;

TEST_F(BackupTest, ABackupThatIsDeletedWhileItIsRestoredIsNotDamaged) {
  TestDevice device(32 * kMiB);
  device.write(0, noise(1, 32 * kMiB));
  const BackupRecord record = back_up_all(device);
  for (const DamageSink& damaged : {DamageSink(), DamageSink([](const Damage&) {})}) {
    const MemoryStore::Objects before = objects_.objects();
    std::atomic<bool> deleted = false;
    objects_.hook = [&](MemoryStore::Call call, const std::string& key) {
      if (call == MemoryStore::Call::kGetRange && key.ends_with(".data") && !deleted.exchange(true))
        delete_backup(store_, lineage_, record.info.uuid);
    };
    const TestDevice target(device.size());
    const Error error =
        error_of([&] { restore_backup(store_, record, target.fd(), {}, {}, damaged); });
    objects_.hook = nullptr;
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound) << error.message();
    EXPECT_THAT(error.message(), HasSubstr("was deleted while it was being restored"));
    objects_.set_objects(before);
  }
}

TEST_F(BackupTest, ARestoreTakesFewRequests) {
  TestDevice device(48 * kMiB);
  for (std::uint64_t offset = 0; offset < device.size(); offset += kChunk)
    device.write(offset, noise(static_cast<unsigned>(offset), kChunk / 4));
  const BackupRecord record = back_up_all(device);
  std::atomic<unsigned> gets = 0;
  objects_.hook = [&](MemoryStore::Call call, const std::string& key) {
    if (call == MemoryStore::Call::kGetRange && key.ends_with(".data")) ++gets;
  };
  EXPECT_TRUE(restored(store_, record) == device.content());
  objects_.hook = nullptr;
  EXPECT_LE(gets, 4U);  // of one pack of 12 MiB: its footer, and three runs
}

TEST_F(BackupTest, StopsARestoreSoon) {
  TestDevice device(256 * kMiB);
  device.write(0, noise(1, 256 * kMiB));
  const BackupRecord record = back_up_all(device);
  const TestDevice target(device.size());
  std::stop_source stop;
  std::atomic<unsigned> gets = 0;
  objects_.hook = [&](MemoryStore::Call call, const std::string& key) {
    if (call == MemoryStore::Call::kGetRange && key.ends_with(".data") && ++gets == 10)
      stop.request_stop();
  };
  const Error error =
      error_of([&] { restore_backup(store_, record, target.fd(), {}, stop.get_token()); });
  objects_.hook = nullptr;
  EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  EXPECT_LT(gets, 30U);  // of 80 and more; each thread may be before its next
}

// However little there is, and however slowly it comes.
TEST_F(BackupTest, ARestoreTellsOfItsProgress) {
  TestDevice device(12 * kMiB);
  device.write(0, noise(1, 12 * kMiB));
  const BackupRecord record = back_up_all(device);
  objects_.hook = [&](MemoryStore::Call call, const std::string& key) {
    if (call == MemoryStore::Call::kGetRange && key.ends_with(".data"))
      std::this_thread::sleep_for(std::chrono::milliseconds(250));
  };
  const TestDevice target(device.size());
  std::set<std::uint64_t> told;
  restore_backup(store_, record, target.fd(),
                 [&](const Progress& progress) { told.insert(progress.bytes_done); }, {});
  objects_.hook = nullptr;
  EXPECT_GE(told.size(), 4U);
}

TEST_F(BackupTest, RefusesToRestoreToAShorterDevice) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord record = back_up_all(device);
  const TestDevice target(kMiB - 512);
  const Error error = error_of([&] { restore_backup(store_, record, target.fd(), {}, {}); });
  EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace convoy
