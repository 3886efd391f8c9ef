// What an interrupted backup has stored is used by the next one, and harms nobody.
#include "backup/concurrency_testing.h"
#include "backup/damage_notes.h"
#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/leftover_chunks.h"
#include "backup/pack_writer.h"

namespace convoy {
namespace {

using Call = MemoryStore::Call;
using std::chrono::hours;

// Slots of all data packs as they were written.
std::size_t chunks_in(ObjectStore& objects, const Uuid& lineage) {
  PackUses packs;
  objects.list(prefix_of(lineage, LineagePart::kPacks), [&](const ObjectInfo& info) {
    const auto object = parse_pack_key(info.key);
    if (object->pack.kind == PackKind::kData) packs[object->pack] = {info.size, 0};
  });
  PackFooters footers(objects, lineage, packs);
  std::size_t chunks = 0;
  for (const auto& [pack, use] : packs) chunks += footers.footer_of(pack)->slots.size();
  return chunks;
}

class InterruptedBackupTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kSize = 128 * kMiB;

  InterruptedBackupTest() { device_.write(0, noise(1, kSize)); }

  BackupPlan whole() { return plan_of(device_, std::nullopt, {{{0, kSize}, SourceKind::kRead}}); }

  // Begins a backup, and ends it when so much has been read.
  void interrupt_after(std::uint64_t bytes) {
    std::stop_source stop;
    const ProgressSink stop_there = [&](const Progress& progress) {
      if (progress.bytes_done >= bytes) stop.request_stop();
    };
    EXPECT_EQ(
        error_of([&] { create_backup(store_, whole(), stop_there, stop.get_token()); }).kind(),
        ErrorKind::kCancelled);
  }

  // All of it is there once, but for what interrupted ones had not put yet.
  void check_that_all_is_used(const BackupRecord& record) {
    EXPECT_EQ(chunks_in(objects_, lineage_), kSize / kChunk);
    EXPECT_TRUE(restored(store_, record) == device_.content());
    check_backups();
    check_nothing_is_left_over();
  }

  TestDevice device_{kSize};
};

TEST_F(InterruptedBackupTest, IsNotSentAgain) {
  interrupt_after(kSize / 2);
  const std::size_t arrived = chunks_in(objects_, lineage_);
  EXPECT_GT(arrived, kSize / kChunk / 3);
  const BackupRecord record = back_up(whole(), device_);
  EXPECT_EQ(record.info.statistics.chunks_reused, arrived);
  check_that_all_is_used(record);
}

TEST_F(InterruptedBackupTest, IsUsedHoweverOftenItIsInterrupted) {
  for (const std::uint64_t part : {1U, 3U, 2U, 6U}) interrupt_after(part * kSize / 8);
  check_that_all_is_used(back_up(whole(), device_));
}

TEST_F(InterruptedBackupTest, IsUsedWhereTheVolumeHasNotChangedSince) {
  interrupt_after(kSize - kSize / 8);
  const std::size_t arrived = chunks_in(objects_, lineage_);
  device_.write(0, noise(1000000, kSize / 2));
  const BackupRecord record = back_up(whole(), device_);
  EXPECT_EQ(record.info.statistics.chunks_reused, arrived - kSize / 2 / kChunk);
  check_backups();
}

// So that removers know what this backup needs.
TEST_F(InterruptedBackupTest, OfWhichAllIsUsedIsNotNamedAnyMore) {
  interrupt_after(kSize / 2);
  const BackupRecord parent = back_up(whole(), device_);
  device_.write(0, noise(1000000, kChunk));
  std::vector<Uuid> builds_on;
  objects_.hook = [&](Call call, const std::string& key) {
    if (call != Call::kPut || !parse_backup_key(key)) return;
    for (const FoundLease& lease : list_leases(store_, lineage_))
      builds_on = lease.record.value().builds_on;
  };
  back_up_all(device_, parent);
  objects_.hook = nullptr;
  EXPECT_THAT(builds_on, testing::ElementsAre(parent.info.uuid));
  check_backups();
  check_nothing_is_left_over();
}

// More packs than are known at once.
class LeftoverChunksTest : public BackupTest {
 protected:
  static constexpr std::uint32_t kPacks = 40;
  static constexpr unsigned kChunksPerPack = 10;

  LeftoverChunksTest() {
    for (std::uint32_t number = 0; number < kPacks; ++number) {
      PackWriter writer(objects_, lineage_, {PackKind::kData, backup_, number}, 1);
      for (unsigned i = 0; i < kChunksPerPack; ++i) {
        const Bytes chunk = noise(number * kChunksPerPack + i, 100);
        writer.add_plain(chunk, sha256(chunk));
      }
      writer.finish();
      const auto& [pack, size] = writer.written().at(0);
      packs_[pack] = {.size = size, .references = 0};
    }
  }

  // Whether chunks [first, end) are found; those that are not there are not.
  std::vector<bool> find(LeftoverChunks& chunks, unsigned first, unsigned end) {
    std::vector<bool> found;
    for (unsigned i = first; i < end; ++i) {
      const Digest digest = sha256(noise(i, 100));
      const auto reference = chunks.find(digest);
      found.push_back(reference.has_value());
      if (!reference) continue;
      EXPECT_EQ(reference->pack.number, i / kChunksPerPack);
      EXPECT_EQ(reference->slot, i % kChunksPerPack);
      EXPECT_EQ(reference->digest, digest);
    }
    return found;
  }

  const Uuid backup_ = Uuid::generate();
  PackUses packs_;
};

TEST_F(LeftoverChunksTest, AreFoundInTheirOrder) {
  LeftoverChunks chunks(objects_, lineage_, packs_, 50);
  EXPECT_THAT(find(chunks, 0, kPacks * kChunksPerPack), testing::Each(true));
  EXPECT_THAT(find(chunks, 0, 10), testing::Each(false));  // long forgotten
}

TEST_F(LeftoverChunksTest, AreFoundBehindChangesOfAnyLength) {
  for (const unsigned changed : {1U, 24U, 26U, 50U, 99U, 100U, 101U, 250U, 399U}) {
    LeftoverChunks chunks(objects_, lineage_, packs_, 50);
    EXPECT_THAT(find(chunks, 1000, 1000 + changed), testing::Each(false));
    EXPECT_THAT(find(chunks, changed, kPacks * kChunksPerPack), testing::Each(true)) << changed;
  }
}

TEST_F(InterruptedBackupTest, OfAPackInWhichDamageWasFoundNothingIsUsed) {
  interrupt_after(kSize / 2);
  const PackName pack = parse_pack_key(pack_keys()[1]).value().pack;
  SlotSet damage;
  damage.insert(pack, 3);
  put_damage_note(store_, lineage_, damage);
  const BackupRecord record = back_up(whole(), device_);
  EXPECT_GT(record.info.statistics.chunks_reused, 0U);
  EXPECT_FALSE(record.packs.contains(pack));
  check_backups();
}

TEST_F(InterruptedBackupTest, IsNotUsedWhereItIsDamaged) {
  interrupt_after(kSize / 2);
  const std::string pack = pack_keys()[1];
  Bytes bytes = objects_.get(pack, kMaxPackSize);
  bytes[bytes.size() - 100] ^= std::byte{1};
  objects_.put(pack, bytes);
  back_up(whole(), device_);
  check_backups();
}

TEST_F(InterruptedBackupTest, OnAFullStoreLeavesNothing) {
  std::atomic<int> puts = 0;
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kPut && key.ends_with(".data") && ++puts == 3)
      throw Error(ErrorKind::kNoSpace, "the disk is full");
  };
  EXPECT_EQ(error_of([&] { back_up(whole(), device_); }).kind(), ErrorKind::kNoSpace);
  objects_.hook = nullptr;
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

// Of a small volume, at every call.
class InterruptedAtEveryCall : public ConcurrencyTest {
 protected:
  // Leaves packs of a writer that died, of which the volume has all chunks still.
  void leave_packs() {
    device_.write(100 * kKiB, noise(4, 40 * kKiB));
    objects_.hook = [&](Call call, const std::string& key) {
      if (dead_ || (call == Call::kPut && key.find("/backups/") != std::string::npos)) die();
    };
    EXPECT_THROW(back_up_all(device_, parent_), Error);
    objects_.hook = nullptr;
    dead_ = false;
    start_ = objects_.objects();
  }

  // With no grace, garbage goes at once.
  void collect_at_once(CollectionMode mode) {
    const Store impatient =
        Store::open(objects_, {.garbage_grace = std::chrono::milliseconds::zero()});
    collect_garbage(impatient, lineage_, mode, {}, {});
  }
};

TEST_F(InterruptedAtEveryCall, IsUsedWhereverItsWriterDied) {
  device_.write(100 * kKiB, noise(4, 40 * kKiB));
  std::size_t reused = 0;
  at_every_call([&] { back_up_all(device_, parent_); }, [&] { die(); },
                [&] {
                  const std::size_t there = chunks_in(objects_, lineage_);
                  const BackupRecord next = back_up_all(device_, parent_);
                  const std::size_t added = chunks_in(objects_, lineage_) - there;
                  EXPECT_EQ(added, next.info.statistics.chunks_stored);
                  if (added == 0) ++reused;
                  check_backups();
                  check_that_garbage_is_collected();
                });
  EXPECT_GT(reused, 2U);
}

TEST_F(InterruptedAtEveryCall, IsNotUsedWhenItIsBeingRemoved) {
  leave_packs();
  std::size_t reused = 0;
  for (const CollectionMode mode :
       {CollectionMode::kWhatNobodyRefersTo, CollectionMode::kHalfDead}) {
    at_every_call(
        [&] { reused += back_up_all(device_, parent_).info.statistics.chunks_stored == 0 ? 1 : 0; },
        [&] { collect_at_once(mode); },
        [&] {
          check_backups();
          check_that_garbage_is_collected();
        });
    at_every_call([&] { collect_at_once(mode); }, [&] { back_up_all(device_, parent_); },
                  [&] {
                    check_backups();
                    check_that_garbage_is_collected();
                  });
  }
  EXPECT_GT(reused, 10U);
}

TEST_F(InterruptedAtEveryCall, AndARemoverInTurnsHarmNone) {
  leave_packs();
  const auto back_up_on_parent = [&] { back_up_all(device_, parent_); };
  const auto collect = [&] { collect_at_once(CollectionMode::kHalfDead); };
  const auto check = [&] { check_backups(); };
  in_turns(back_up_on_parent, collect, {none_, none_}, check);
  in_turns(collect, back_up_on_parent, {none_, none_}, check);
  in_turns(back_up_on_parent, collect, {hour_, none_}, check);
  in_turns(collect, back_up_on_parent, {hour_, hour_}, check);
}

}  // namespace
}  // namespace convoy
