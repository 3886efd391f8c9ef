// What a backup stores and what it does not, whatever changed.
#include "backup/create_backup.h"

#include <atomic>

#include <fcntl.h>

#include "backup/backup_testing.h"
#include "base/uuid.h"
#include "sys/block_device.h"

namespace convoy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(BackupTest, RestoresWhatWasBackedUp) {
  TestDevice device(40 * kMiB);
  device.write(0, noise(1, 17 * kMiB));  // more than one pack
  device.write(30 * kMiB, Bytes(kMiB, std::byte{'a'}));
  const BackupRecord record = back_up_all(device);
  EXPECT_EQ(record.info.statistics.bytes_read, 40 * kMiB);
  EXPECT_GT(record.packs.size(), 2U);
  check_backups();
  check_nothing_is_left_over();
}

TEST_F(BackupTest, StoresNothingForZerosReadOrToldOf) {
  TestDevice device(8 * kMiB);
  EXPECT_FALSE(back_up_all(device).root);
  EXPECT_FALSE(back_up(device, std::nullopt, {{{0, 8 * kMiB}, SourceKind::kZero}}).root);
  EXPECT_FALSE(back_up(device, std::nullopt, {}).root);
  EXPECT_THAT(pack_keys(), IsEmpty());
  check_backups();
}

TEST_F(BackupTest, StoresOneChunkForOneChangedPage) {
  TestDevice device(40 * kMiB);
  device.write(0, noise(1, 40 * kMiB));
  const BackupRecord first = back_up_all(device);
  device.write(10 * kMiB, noise(2, 4096));
  const BackupRecord second =
      back_up(device, first, {{{10 * kMiB, 10 * kMiB + 4096}, SourceKind::kRead}});
  EXPECT_EQ(second.info.statistics.bytes_read, kChunk);
  EXPECT_EQ(second.info.statistics.chunks_stored, 1U);
  EXPECT_LT(second.info.statistics.bytes_stored, kChunk + 20 * kKiB);
  check_backups();
}

TEST_F(BackupTest, KeepsTheParentsChunksWhereTheContentIsTheSame) {
  TestDevice device(20 * kMiB);
  device.write(0, noise(1, 20 * kMiB));
  const BackupRecord first = back_up_all(device);
  const std::size_t packs = pack_keys().size();
  const BackupRecord second = back_up_all(device, first);
  EXPECT_EQ(second.info.statistics.chunks_stored, 0U);
  EXPECT_EQ(second.info.statistics.chunks_reused, 20 * kMiB / kChunk);
  EXPECT_EQ(second.root, first.root);
  EXPECT_EQ(second.packs, first.packs);
  EXPECT_EQ(pack_keys().size(), packs);
}

TEST_F(BackupTest, StoresEqualChunksOnce) {
  TestDevice device(16 * kMiB);
  const Bytes chunk = noise(1, kChunk);
  for (std::uint64_t offset = 0; offset < device.size(); offset += kChunk) {
    device.write(offset, chunk);
  }
  const BackupRecord record = back_up_all(device);
  EXPECT_EQ(record.info.statistics.chunks_stored, 1U);
  EXPECT_EQ(record.info.statistics.chunks_reused, 16 * kMiB / kChunk - 1);
  check_backups();
}

TEST_F(BackupTest, FindsChunksElsewhereInTheParentIfItReadsMuch) {
  TestDevice device(64 * kMiB);
  device.write(0, noise(1, 16 * kMiB));
  const BackupRecord first = back_up_all(device);
  std::uint64_t gets = 0;
  objects_.hook = [&](MemoryStore::Call call, const std::string&) {
    if (call == MemoryStore::Call::kGetRange) ++gets;
  };
  device.write(40 * kMiB, noise(1, 16 * kMiB));
  const BackupRecord copied = back_up(device, first, {{{40 * kMiB, 56 * kMiB}, SourceKind::kRead}});
  EXPECT_LT(copied.info.statistics.chunks_stored, 16 * kMiB / kChunk / 20);  // all but a few
  const std::uint64_t gets_for_much = std::exchange(gets, 0);

  // Beside the parent's 32 MiB, too little to read its tree for.
  device.write(60 * kMiB, noise(1, kMiB));
  const BackupRecord little =
      back_up(device, copied, {{{60 * kMiB, 61 * kMiB}, SourceKind::kRead}});
  EXPECT_EQ(little.info.statistics.chunks_stored, kMiB / kChunk);
  EXPECT_LT(gets, gets_for_much);
  objects_.hook = nullptr;
  check_backups();
}

TEST_F(BackupTest, FindsChunksThatHaveMoved) {
  TestDevice device(64 * kMiB);
  device.write(0, noise(1, 8 * kMiB));
  const BackupRecord first = back_up_all(device);
  // The parent's packs lose all references before they get new ones.
  for (const SourceKind kind : {SourceKind::kZero, SourceKind::kRead}) {
    device.write(0, Bytes(8 * kMiB));
    device.write(40 * kMiB, noise(1, 8 * kMiB));
    const BackupRecord moved = back_up(
        device, first, {{{0, 8 * kMiB}, kind}, {{40 * kMiB, 48 * kMiB}, SourceKind::kRead}});
    EXPECT_LT(moved.info.statistics.chunks_stored, 8 * kMiB / kChunk / 20);
    check_backups();
  }
}

TEST_F(BackupTest, DropsWhatIsToldToBeZero) {
  TestDevice device(40 * kMiB);
  device.write(0, noise(1, 40 * kMiB));
  const BackupRecord first = back_up_all(device);
  // Whole leaves, parts of leaves, and parts of chunks: these must be read, since the rest of the
  // chunk is not zero.
  device.zero(1000 * 512, 20 * kMiB);
  const BackupRecord second =
      back_up(device, first, {{{1000 * 512, 1000 * 512 + 20 * kMiB}, SourceKind::kZero}});
  EXPECT_EQ(second.info.statistics.bytes_read, 2 * kChunk);
  check_backups();
}

TEST_F(BackupTest, ForgetsPacksThatItDoesNotReferToAnyMore) {
  TestDevice device(4 * kMiB);
  device.write(0, noise(1, 4 * kMiB));
  const BackupRecord first = back_up_all(device);
  device.write(0, noise(2, 4 * kMiB));
  const BackupRecord second = back_up_all(device, first);
  for (const auto& [pack, use] : second.packs) EXPECT_EQ(pack.backup, second.info.uuid);
  check_backups();
}

TEST_F(BackupTest, CompressesWhatCanBeCompressed) {
  TestDevice device(8 * kMiB);
  for (std::uint64_t i = 0; i < device.size() / kChunk; ++i) {
    device.write(i * kChunk, Bytes(kChunk, static_cast<std::byte>(i + 1)));
  }
  EXPECT_LT(back_up_all(device).info.statistics.bytes_stored, 100 * kKiB);
  check_backups();
}

TEST_F(BackupTest, TakesVolumesOfAnyNumberOfSectors) {
  constexpr std::uint64_t kLeaf = 128 * kChunk;
  for (const std::uint64_t size : std::vector<std::uint64_t>{
           512, 4096, kChunk, kChunk + 512, kLeaf - 512, kLeaf, kLeaf + 1536, 20 * kMiB + 3584}) {
    TestDevice device(size);
    device.write(0, noise(static_cast<unsigned>(size), size));
    const BackupRecord record = back_up_all(device);
    EXPECT_TRUE(restored(store_, record) == device.content()) << size;
  }
  check_backups();
}

// The tree of 4 KiB chunks grows by a level at 512 KiB and at 64 MiB.
class ResizedBackup : public BackupTest,
                      public testing::WithParamInterface<std::pair<std::uint64_t, std::uint64_t>> {
};

TEST_P(ResizedBackup, HoldsTheVolumeAsItIsNow) {
  const auto [before, after] = GetParam();
  TestDevice device(before);
  device.write(0, noise(1, before));
  chunk_size_ = kMinChunkSize;
  const BackupRecord first = back_up_all(device);
  chunk_size_ = kChunk;  // the parent's counts

  device.resize(after);  // to zeros, if it grows; nothing else is told to have changed
  const BackupRecord second = back_up(device, first, {});
  EXPECT_LE(second.info.statistics.bytes_read, 4096U);
  EXPECT_EQ(second.chunk_size, 4096U);

  if (after >= 8192) {
    device.write(after - 4096, noise(2, 4096));
    back_up(device, second, {{{after - 4096, after}, SourceKind::kRead}});
  }
  check_backups();
  delete_and_forget(first.info.uuid);
  check_backups();
  check_nothing_is_left_over();
}

INSTANTIATE_TEST_SUITE_P(Sizes, ResizedBackup,
                         testing::Values(std::pair{4096, 8192}, std::pair{4096 + 512, 1 << 20},
                                         std::pair{512, 512 << 10}, std::pair{300 << 10, 65 << 20},
                                         std::pair{(600 << 10) + 512, 65 << 20},
                                         std::pair{8192, 4096}, std::pair{1 << 20, 4096 + 512},
                                         std::pair{(65 << 20) + 512, 300 << 10},
                                         std::pair{65 << 20, 512}, std::pair{2 << 20, 1 << 20},
                                         std::pair{(1 << 20) + 512, (1 << 20) + 1024},
                                         std::pair{(1 << 20) + 1024, (1 << 20) + 512}));

std::ptrdiff_t count_packs(const BackupRecord& record, PackKind kind) {
  return std::ranges::count_if(record.packs,
                               [&](const auto& pack) { return pack.first.kind == kind; });
}

TEST_F(BackupTest, WritesATreeAnewThatStandsInTooManyPacks) {
  constexpr std::uint64_t kLeaf = 128 * 4096;
  TestDevice device(100 * kLeaf);
  for (unsigned i = 0; i < 100; ++i) device.write(i * kLeaf, noise(i, 8192));
  chunk_size_ = kMinChunkSize;
  BackupRecord last = back_up_all(device);

  // Each backup changes another leaf, so that each one's tree stands in one pack more.
  std::vector<std::ptrdiff_t> packs;
  for (unsigned i = 0; i < 14; ++i) {
    device.zero(i * kLeaf, 4096);
    last = back_up(device, last, {{{i * kLeaf, i * kLeaf + 4096}, SourceKind::kZero}});
    packs.push_back(count_packs(last, PackKind::kTree));
  }
  EXPECT_EQ(packs[11], 13);
  EXPECT_EQ(packs[12], 1);
  EXPECT_EQ(packs[13], 2);
  EXPECT_TRUE(restored(store_, last) == device.content());
}

TEST_F(BackupTest, StoresAgainTogetherWhatStandsInTooManyPacks) {
  TestDevice device(4 * kMiB);
  device.write(0, noise(1, 2 * kMiB));
  chunk_size_ = kMinChunkSize;
  BackupRecord last = back_up_all(device);
  std::vector<std::ptrdiff_t> packs;
  std::uint64_t read = 0;
  for (unsigned i = 0; i < 10; ++i) {
    device.write(i * 64 * kKiB, noise(100 + i, 4096));
    last = back_up(device, last, {{{i * 64 * kKiB, i * 64 * kKiB + 4096}, SourceKind::kRead}});
    packs.push_back(count_packs(last, PackKind::kData));
    read = std::max(read, last.info.statistics.bytes_read);
  }
  EXPECT_EQ(packs[7], 9);
  EXPECT_EQ(packs[8], 1);
  EXPECT_EQ(packs[9], 2);
  EXPECT_EQ(read, 2 * kMiB);  // nothing of what is zero
  check_backups();
  for (const Uuid& backup : backups_of(store_, lineage_))
    if (backup != last.info.uuid) delete_and_forget(backup);
  check_backups();
  check_nothing_is_left_over();
}

// A pack that holds much is worth two requests.
TEST_F(BackupTest, DoesNotStoreFullPacksAgain) {
  constexpr std::uint64_t kSize = 160 * kMiB;
  TestDevice device(kSize);
  device.write(0, noise(1, kSize));
  const BackupRecord first = back_up_all(device);
  EXPECT_GT(count_packs(first, PackKind::kData), 5);
  device.write(0, noise(2, 4096));
  EXPECT_EQ(back_up(device, first, {{{0, 4096}, SourceKind::kRead}}).info.statistics.chunks_stored,
            1U);
}

TEST_F(BackupTest, ReadsADeviceOpenedForDirectIo) {
  const std::string path = testing::TempDir() + "direct-" + random_hex(16);
  const std::uint64_t size = 20 * kMiB + 512 * 3;
  const Bytes content = noise(1, size);
  {
    const UniqueFd file = open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    write_all_at(file.get(), content, 0);
    fsync_file(file.get(), path);
  }
  const BlockDevice device = BlockDevice::open(path, Access::kReadWrite);
  BackupPlan plan{.source = source_of(size), .device_fd = device.fd()};
  plan.ranges = {{{0, size}, SourceKind::kRead}};
  const BackupRecord record = create_backup(store_, plan, {}, {});
  EXPECT_TRUE(restored(store_, record) == content);

  std::filesystem::resize_file(path, 0);
  std::filesystem::resize_file(path, size);
  restore_backup(store_, record, device.fd(), {}, {});
  const UniqueFd file = open_file(path, O_RDONLY);
  Bytes found(size);
  read_exactly_at(file.get(), found, 0);
  EXPECT_TRUE(found == content);
  std::filesystem::remove(path);
}

TEST_F(BackupTest, ReportsProgressUpToTheTotal) {
  TestDevice device(20 * kMiB);
  device.write(0, noise(1, 20 * kMiB));
  std::vector<Progress> seen;
  const ProgressSink sink = [&](const Progress& progress) { seen.push_back(progress); };
  const BackupRecord record = create_backup(
      store_, plan_of(device, std::nullopt, {{{0, 12 * kMiB}, SourceKind::kRead}}), sink, {});
  ASSERT_GE(seen.size(), 3U);
  EXPECT_EQ(seen.front().bytes_done, 0U);
  EXPECT_EQ(seen.back().bytes_done, 12 * kMiB);
  for (const Progress& progress : seen) EXPECT_EQ(progress.bytes_total, 12 * kMiB);

  seen.clear();
  const TestDevice target(20 * kMiB);
  restore_backup(store_, record, target.fd(), sink, {});
  EXPECT_EQ(seen.back().bytes_done, 12 * kMiB);
  for (const Progress& progress : seen) EXPECT_EQ(progress.bytes_total, 12 * kMiB);
}

// More than all threads together hold in memory.
constexpr std::uint64_t kLongWork = 256 * kMiB;

TEST_F(BackupTest, StopsSoon) {
  TestDevice device(kLongWork);
  device.write(0, noise(1, kLongWork));
  std::stop_source stop;
  std::uint64_t done = 0;
  const ProgressSink stop_at_20 = [&](const Progress& progress) {
    done = progress.bytes_done;
    if (done >= 20 * kMiB) stop.request_stop();
  };
  const Error error = error_of([&] {
    create_backup(store_, plan_of(device, std::nullopt, {{{0, kLongWork}, SourceKind::kRead}}),
                  stop_at_20, stop.get_token());
  });
  EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  EXPECT_LT(done, kLongWork / 2);
  EXPECT_THAT(backups_of(store_, lineage_), IsEmpty());
}

TEST_F(BackupTest, RefusesPlansThatCantBe) {
  TestDevice device(kMiB);
  const auto refused = [&](const std::function<void(BackupPlan&)>& spoil) {
    BackupPlan plan = plan_of(device, std::nullopt, {{{0, kMiB}, SourceKind::kRead}});
    spoil(plan);
    return error_of([&] { create_backup(store_, plan, {}, {}); }).kind();
  };
  const auto invalid = ErrorKind::kInvalidArgument;
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.source.size = 0; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.source.size = 1000; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.source.size = 2 * kMiB; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.source.size = kMaxVolumeSize + 512; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.source.volume.name = "../x"; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.chunk_size = 5000; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.chunk_size = 2048; }), invalid);
  EXPECT_EQ(refused([](BackupPlan& plan) { plan.ranges[0].bytes.end = kMiB + 1; }), invalid);
  EXPECT_THAT(keys_under(""), ElementsAre(kStoreKey));
}

// Each costs what the way to the store and back takes.
TEST_F(BackupTest, AsksTheStoreElevenTimesIfNothingHasChanged) {
  TestDevice device(64 * kMiB);
  device.write(0, noise(1, 4 * kMiB));
  const BackupRecord first = back_up_all(device);
  std::atomic<int> calls = 0;
  objects_.hook = [&](MemoryStore::Call, const std::string&) { ++calls; };
  const Store store = Store::open(objects_);
  const BackupRecord second = create_backup(store, plan_of(device, first, {}), {}, {});
  objects_.hook = nullptr;
  EXPECT_EQ(calls, 11);
  EXPECT_EQ(second.root, first.root);
  check_backups();
}

TEST_F(BackupTest, SaysThatTheParentIsGone) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord first = back_up_all(device);
  delete_and_forget(first.info.uuid);
  const Error error = error_of([&] { back_up_all(device, first); });
  EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error.message(), HasSubstr(first.info.uuid.to_string()));
  EXPECT_THAT(keys_under(""), ElementsAre(kStoreKey));
}

TEST_F(BackupTest, FindsBackupsByVolumeNameAndTime) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord first = back_up_all(device);
  const BackupRecord second = back_up_all(device, first);
  BackupPlan other = plan_of(device, std::nullopt, {});
  other.source.lineage = Uuid::generate();
  other.source.volume.name = "web";
  const BackupRecord third = create_backup(store_, other, {}, {});

  const auto uuids = [&](const std::optional<std::string>& name) {
    std::vector<Uuid> found;
    for (const BackupInfo& info : list_backups(store_, name).backups) found.push_back(info.uuid);
    return found;
  };
  EXPECT_THAT(uuids("db"), ElementsAre(first.info.uuid, second.info.uuid));
  EXPECT_THAT(uuids("web"), ElementsAre(third.info.uuid));
  EXPECT_EQ(uuids(std::nullopt).size(), 3U);
  EXPECT_THAT(uuids("d"), IsEmpty());
  EXPECT_EQ(read_backup(store_, lineage_, second.info.uuid).info.parent, first.info.uuid);
}

}  // namespace
}  // namespace convoy
