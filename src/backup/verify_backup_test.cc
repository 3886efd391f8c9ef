// What a verification finds, and that nothing is built on it any more.
#include "backup/verify_backup.h"

#include <atomic>
#include <random>

#include "backup/backup_testing.h"
#include "backup/damage_notes.h"

namespace convoy {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class VerifyTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kSize = 3 * kMiB;  // six leaves

  VerifyTest() {
    chunk_size_ = kMinChunkSize;
    device_.write(0, noise(1, kSize / 2));
    first_ = back_up_all(device_);
    device_.write(64 * kKiB, noise(2, 100 * kKiB));
    second_ = back_up_all(device_, first_);
  }

  std::vector<Damage> verify(const BackupRecord& record, VerifyDepth depth = VerifyDepth::kFull) {
    Verifier verifier(store_, lineage_, depth);
    std::vector<Damage> damages = verifier.verify(record, {}, {});
    verifier.note_damage();
    return damages;
  }

  std::string first_pack(PackKind kind) const {
    return pack_key(lineage_, {kind, first_.info.uuid, 0});
  }

  void flip(const std::string& key, std::size_t byte) {
    Bytes bytes = objects_.get(key, kMaxPackSize);
    bytes.at(byte) ^= std::byte{1};
    objects_.put(key, bytes);
  }

  // What restoring despite damage leaves out.
  std::vector<ByteRange> lost_in_restore(const BackupRecord& record) {
    const TestDevice target(record.info.source.size);
    std::vector<ByteRange> lost;
    DamageList damages;
    restore_backup(store_, record, target.fd(), {}, {},
                   [&](Damage damage) { damages.add(std::move(damage)); });
    for (const Damage& damage : damages.take()) lost.push_back(damage.range);
    Bytes expected = expected_.at(record.info.uuid);
    for (const ByteRange& range : lost) {
      const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(range.begin);
      const auto end = std::min<std::uint64_t>(range.end, expected.size());
      std::fill(begin, expected.begin() + static_cast<std::ptrdiff_t>(end), std::byte{0});
    }
    EXPECT_TRUE(target.content() == expected);
    return lost;
  }

  TestDevice device_{kSize};
  BackupRecord first_, second_;
};

TEST_F(VerifyTest, FindsNothingInWhatIsWhole) {
  for (const VerifyDepth depth : {VerifyDepth::kQuick, VerifyDepth::kFull}) {
    EXPECT_THAT(verify(first_, depth), IsEmpty());
    EXPECT_THAT(verify(second_, depth), IsEmpty());
  }
  EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kDamaged)), IsEmpty());
}

TEST_F(VerifyTest, NamesBackupRangePackAndReason) {
  flip(first_pack(PackKind::kData), sizeof(FrameHeader) + 10);
  EXPECT_THAT(verify(first_, VerifyDepth::kQuick), IsEmpty());
  const auto damages = verify(first_);
  ASSERT_THAT(damages, SizeIs(1));
  EXPECT_EQ(damages[0].range, (ByteRange{0, kMinChunkSize}));
  EXPECT_THAT(damages[0].reason,
              AllOf(HasSubstr(first_.info.uuid.to_string()), HasSubstr("bytes 0 to 4096"),
                    HasSubstr(first_pack(PackKind::kData)), HasSubstr("slot 0")));
}

TEST_F(VerifyTest, ReadsWhatBackupsShareOnceAndStillTellsOfItForEach) {
  flip(first_pack(PackKind::kData), sizeof(FrameHeader) + 10);
  std::atomic<std::size_t> reads = 0;
  Verifier verifier(store_, lineage_, VerifyDepth::kFull);
  objects_.hook = [&](MemoryStore::Call call, const std::string&) {
    if (call == MemoryStore::Call::kGetRange) ++reads;
  };
  EXPECT_THAT(verifier.verify(first_, {}, {}), SizeIs(1));
  const std::size_t of_first = reads.exchange(0);
  const auto damages = verifier.verify(second_, {}, {});
  ASSERT_THAT(damages, SizeIs(1));
  EXPECT_THAT(damages[0].reason, HasSubstr(second_.info.uuid.to_string()));
  EXPECT_LT(reads, of_first);
  objects_.hook = {};
}

TEST_F(VerifyTest, TellsOfAPackThatHasGrown) {
  Bytes bytes = objects_.get(first_pack(PackKind::kData), kMaxPackSize);
  bytes.push_back(std::byte{0});
  objects_.put(first_pack(PackKind::kData), bytes);
  const auto damages = verify(first_, VerifyDepth::kQuick);
  ASSERT_THAT(damages, Not(IsEmpty()));
  EXPECT_THAT(damages[0].reason, HasSubstr("and should have"));
}

// Whatever happens to the packs of a backup: it is found, it is told which ranges are lost and the
// rest is restored, and the next backup stores what is lost again, and is whole.
TEST_F(VerifyTest, TheNextBackupIsWholeWhateverWasDamaged) {
  const MemoryStore::Objects whole = objects_.objects();
  const std::vector<std::string> packs = pack_keys();
  std::mt19937 generator(1);  // NOLINT(cert-msc32-c,cert-msc51-cpp): so that a failure comes again
  for (int round = 0; round < 60; ++round) {
    objects_.set_objects(whole);
    const std::string& pack = packs[generator() % packs.size()];
    Bytes bytes = objects_.get(pack, kMaxPackSize);
    switch (round % 5) {
      case 0:
        bytes[generator() % bytes.size()] ^= std::byte{0x40};
        objects_.put(pack, bytes);
        break;
      case 1:
        bytes.resize(generator() % bytes.size());
        objects_.put(pack, bytes);
        break;
      case 2:
        objects_.remove(pack);
        break;
      case 3:
        bytes.push_back(std::byte{0});
        objects_.put(pack, bytes);
        break;
      default:
        objects_.put(pack, objects_.get(packs[generator() % packs.size()], kMaxPackSize));
    }
    SCOPED_TRACE(fmt::format("round {}: {}", round, pack));
    const std::vector<Damage> damages = verify(second_);
    std::vector<ByteRange> found;
    found.reserve(damages.size());
    for (const Damage& damage : damages) found.push_back(damage.range);
    if (found.empty()) {
      EXPECT_TRUE(restored(store_, second_) == expected_.at(second_.info.uuid));
    } else if (objects_.head(pack) && objects_.head(pack)->size == whole.at(pack).data.size()) {
      EXPECT_EQ(lost_in_restore(second_), found);
    }

    TestDevice device(kSize);
    device.write(0, expected_.at(second_.info.uuid));
    device.write(kMiB, noise(static_cast<unsigned>(round), 5000));
    BackupPlan plan = plan_of(device, second_, {{{kMiB, kMiB + 8 * kKiB}, SourceKind::kRead}});
    plan.repair = std::ranges::any_of(
        damages, [](const Damage& d) { return d.reference.pack.kind == PackKind::kTree; });
    if (plan.repair) {
      BackupPlan unaware = plan;
      unaware.repair = false;
      EXPECT_EQ(error_of([&] { back_up(unaware, device); }).kind(), ErrorKind::kCorrupt);
    }
    const BackupRecord next = back_up(plan, device);
    EXPECT_THAT(verify(next), IsEmpty());
    // Nothing is left to repair for those that are built on it.
    const BackupRecord after = back_up(device, next, {});
    EXPECT_EQ(after.info.statistics.bytes_read, 0U);
    EXPECT_EQ(after.info.statistics.bytes_stored, 0U);
    expected_.erase(after.info.uuid);
    EXPECT_TRUE(restored(store_, next) == device.content());
    std::map<PackName, std::uint64_t> listed;
    for (const auto& [name, use] : next.packs) listed[name] = use.references;
    EXPECT_EQ(listed, ReferenceCount(store_, next).counts());
    expected_.erase(next.info.uuid);
  }
}

TEST_F(VerifyTest, ABackupRepairsATreeOfWhichNoNoteTellsIfItIsAskedTo) {
  flip(pack_key(lineage_, {PackKind::kTree, second_.info.uuid, 0}), 100);
  BackupPlan plan = plan_of(device_, second_, {{{0, kMinChunkSize}, SourceKind::kRead}});
  EXPECT_EQ(error_of([&] { back_up(plan, device_); }).kind(), ErrorKind::kCorrupt);
  plan.repair = true;
  const BackupRecord repaired = back_up(plan, device_);
  EXPECT_THAT(verify(repaired), IsEmpty());
  EXPECT_TRUE(restored(store_, repaired) == device_.content());
}

TEST_F(VerifyTest, NeighboursOfAPackAreOneEntryAndAreNotedOnce) {
  objects_.remove(first_pack(PackKind::kData));
  for (int i = 0; i < 2; ++i) {
    const auto damages = verify(first_);
    ASSERT_THAT(damages, SizeIs(1));
    EXPECT_EQ(damages[0].range, (ByteRange{0, kSize / 2}));
    EXPECT_THAT(damages[0].reason, HasSubstr("the pack is missing"));
  }
  EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kDamaged)), SizeIs(1));
}

TEST_F(VerifyTest, AsksForAMissingPackOnlyOnce) {
  objects_.remove(first_pack(PackKind::kData));
  std::atomic<std::size_t> calls = 0;
  objects_.hook = [&](MemoryStore::Call, const std::string&) { ++calls; };
  for (const VerifyDepth depth : {VerifyDepth::kQuick, VerifyDepth::kFull}) {
    calls = 0;
    EXPECT_THAT(verify(first_, depth), SizeIs(1));
    EXPECT_LT(calls, 40U);  // of 384 chunks
  }
  objects_.hook = {};
}

TEST(DamageListTest, JoinsNeighboursInWhateverOrderTheyCome) {
  const PackName pack{PackKind::kData, Uuid::generate(), 0};
  const PackName other{PackKind::kData, Uuid::generate(), 0};
  std::vector<Damage> parts;
  parts.reserve(101);
  for (std::uint64_t i = 0; i < 100; ++i) {
    parts.push_back({.range = {i, i + 1},
                     .reference = {.pack = i < 60 ? pack : other, .slot = 0, .digest = {}},
                     .reason = std::to_string(i)});
  }
  parts.push_back(parts[7]);                     // told twice
  std::ranges::shuffle(parts, std::mt19937(1));  // NOLINT(cert-msc32-c,cert-msc51-cpp)
  DamageList list;
  for (const Damage& part : parts) list.add(part);
  const std::vector<Damage> damages = list.take();
  ASSERT_THAT(damages, SizeIs(2));
  EXPECT_EQ(damages[0].range, (ByteRange{0, 60}));
  EXPECT_EQ(damages[0].reason, "0");
  EXPECT_EQ(damages[1].range, (ByteRange{60, 100}));
  EXPECT_EQ(damages[1].reason, "60");
  EXPECT_THAT(list.take(), IsEmpty());
}

TEST_F(VerifyTest, NotesGoWithTheLastBackupThatNeedsTheirPacks) {
  flip(first_pack(PackKind::kData), sizeof(FrameHeader) + 10);
  verify(second_);
  EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kDamaged)), SizeIs(1));
  delete_and_forget(first_.info.uuid);
  EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kDamaged)), SizeIs(1));
  delete_and_forget(second_.info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

TEST_F(VerifyTest, CanBeCancelled) {
  std::stop_source stop;
  stop.request_stop();
  Verifier verifier(store_, lineage_, VerifyDepth::kFull);
  EXPECT_EQ(error_of([&] { verifier.verify(first_, {}, stop.get_token()); }).kind(),
            ErrorKind::kCancelled);
}

}  // namespace
}  // namespace convoy
