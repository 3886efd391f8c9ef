// What a collection of garbage frees, and what it leaves.
#include "backup/concurrency_testing.h"
#include "backup/lease.h"
#include "backup/removal_plan.h"
#include "backup/verify_backup.h"

namespace convoy {
namespace {

using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using Action = CollectedPack::Action;
using Call = MemoryStore::Call;
using std::chrono::hours;

class GarbageTest : public ConcurrencyTest {
 protected:
  Collection collect(CollectionMode mode = CollectionMode::kHalfDead) {
    return collect_garbage(store_, lineage_, mode, {}, {});
  }

  // Packs of chunks with which that was done.
  static std::vector<CollectedPack> data_packs(const Collection& collection, Action action) {
    std::vector<CollectedPack> packs;
    std::ranges::copy_if(collection.packs, std::back_inserter(packs), [&](const auto& collected) {
      return collected.action == action && collected.pack.kind == PackKind::kData;
    });
    return packs;
  }

  // A volume whose first backup is gone, and whose second one needs little of the first one's pack.
  void make_half_dead() {
    device_.write(0, noise(10, 400 * kKiB));
    const BackupRecord first = back_up_all(device_, parent_);
    delete_and_forget(parent_.info.uuid);
    device_.write(0, noise(11, 300 * kKiB));
    second_ = back_up_all(device_, first);
    delete_and_forget(first.info.uuid);
    start_ = objects_.objects();
  }

  std::uint64_t bytes_stored() {
    std::uint64_t bytes = 0;
    for (const auto& [key, object] : objects_.objects()) bytes += object.data.size();
    return bytes;
  }

  void check_that_verify_is_clean() {
    for (const Uuid& backup : backups_of(store_, lineage_)) {
      for (const VerifyDepth depth : {VerifyDepth::kQuick, VerifyDepth::kFull}) {
        Verifier verifier(store_, lineage_, depth);
        EXPECT_THAT(verifier.verify(read_backup(store_, lineage_, backup), {}, {}), IsEmpty());
      }
    }
  }

  BackupRecord second_;
};

TEST_F(GarbageTest, RewritesAHalfDeadPackWithoutWhatNobodyNeeds) {
  make_half_dead();
  const std::uint64_t before = bytes_stored();
  const Collection collection = collect();
  EXPECT_EQ(collection.not_rewritten, "");
  const auto rewritten = data_packs(collection, Action::kRewritten);
  EXPECT_THAT(rewritten,
              testing::Contains(testing::Field(&CollectedPack::freed, testing::Gt(290 * kKiB))));
  std::uint64_t freed = 0;
  for (const CollectedPack& pack : collection.packs) freed += pack.freed;
  EXPECT_EQ(before - bytes_stored(), freed);
  check_backups();
  check_that_verify_is_clean();
  check_nothing_is_left_over();
  EXPECT_THAT(collect().packs, IsEmpty());  // there is nothing left to do

  // Backups go on on it, and it is rewritten again.
  device_.write(300 * kKiB, noise(12, 80 * kKiB));
  const BackupRecord third = back_up_all(device_, second_);
  delete_and_forget(second_.info.uuid);
  EXPECT_THAT(data_packs(collect(), Action::kRewritten), Not(IsEmpty()));
  check_backups();
  check_that_verify_is_clean();
  check_nothing_is_left_over();
  delete_and_forget(third.info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

TEST_F(GarbageTest, KeepsAPackOfWhichEnoughIsNeeded) {
  device_.write(0, noise(10, 400 * kKiB));
  const BackupRecord first = back_up_all(device_, parent_);
  device_.write(0, noise(11, 80 * kKiB));
  back_up_all(device_, first);
  delete_and_forget(parent_.info.uuid);
  delete_and_forget(first.info.uuid);
  for (const CollectedPack& pack : data_packs(collect(), Action::kRewritten))
    EXPECT_NE(pack.pack.backup, first.info.uuid);
}

TEST_F(GarbageTest, ADryRunTellsWhatWouldBeDoneAndChangesNothing) {
  make_half_dead();
  objects_.put(pack_key(lineage_, {PackKind::kData, Uuid::generate(), 0}), Bytes(1000));
  objects_.advance(hours(25));
  const auto before = objects_.objects();
  const Collection planned = collect(CollectionMode::kPlanOnly);
  const auto keys_of = [](const MemoryStore::Objects& objects) {
    std::vector<std::string> keys;
    for (const auto& [key, object] : objects) keys.push_back(key);
    return keys;
  };
  EXPECT_EQ(keys_of(objects_.objects()), keys_of(before));
  EXPECT_THAT(data_packs(planned, Action::kRemoved), SizeIs(1));
  EXPECT_THAT(data_packs(planned, Action::kRewritten), Not(IsEmpty()));

  const Collection done = collect();
  ASSERT_EQ(done.packs.size(), planned.packs.size());
  for (const CollectedPack& plan : planned.packs) {
    const auto found = std::ranges::find(done.packs, plan.pack, &CollectedPack::pack);
    ASSERT_NE(found, done.packs.end());
    EXPECT_EQ(found->action, plan.action);
    EXPECT_EQ(found->size, plan.size);
  }
}

TEST_F(GarbageTest, AReaderFindsAPackThatIsRewrittenWhileItReads) {
  make_half_dead();
  const auto outcomes =
      at_every_call([&] { EXPECT_TRUE(restored(store_, second_) == device_.content()); },
                    [&] { collect(); }, [&] { check_backups(); });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
  EXPECT_GT(outcomes.size(), 4U);
}

TEST_F(GarbageTest, TwoCollectionsAtOnceHarmNone) {
  make_half_dead();
  const auto outcomes = at_every_call([&] { collect(); }, [&] { collect(); },
                                      [&] {
                                        check_backups();
                                        check_that_verify_is_clean();
                                        collect();
                                        check_nothing_is_left_over();
                                      });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
  in_turns([&] { collect(); }, [&] { collect(); }, {none_, none_}, [&] { check_backups(); });
}

TEST_F(GarbageTest, ACollectorThatDiesIsFinishedByTheNext) {
  make_half_dead();
  at_every_call([&] { collect(); }, [&] { die(); },
                [&] {
                  check_backups();
                  check_that_verify_is_clean();
                  collect();
                  check_nothing_is_left_over();
                });
}

TEST_F(GarbageTest, ABackupBesideItHarmsNone) {
  make_half_dead();
  device_.write(8 * kKiB, noise(20, 9000));
  const auto back_up_on_second = [&] { back_up_all(device_, second_); };
  const auto delete_second = [&] { delete_backup(store_, lineage_, second_.info.uuid); };
  const auto check = [&] {
    check_backups();
    check_that_garbage_is_collected();
  };
  at_every_call(back_up_on_second, [&] { collect(); }, check);
  at_every_call([&] { collect(); }, back_up_on_second, check);
  // The parent goes meanwhile, too.
  at_every_call(
      back_up_on_second,
      [&] {
        delete_second();
        collect();
      },
      check);
  at_every_call([&] { collect(); },
                [&] {
                  back_up_on_second();
                  delete_second();
                },
                check);
  // And the writer stands still for an hour.
  at_every_call(
      back_up_on_second,
      [&] {
        objects_.advance(hours(1));
        delete_second();
        collect();
      },
      check);
}

TEST_F(GarbageTest, ABackupAndACollectionInTurnsHarmNone) {
  make_half_dead();
  device_.write(8 * kKiB, noise(20, 9000));
  const auto back_up_on_second = [&] { back_up_all(device_, second_); };
  const auto delete_and_collect = [&] {
    delete_backup(store_, lineage_, second_.info.uuid);
    collect();
  };
  const auto check = [&] { check_backups(); };
  in_turns(back_up_on_second, delete_and_collect, {none_, none_}, check);
  in_turns(delete_and_collect, back_up_on_second, {none_, none_}, check);
  in_turns(back_up_on_second, delete_and_collect, {hour_, none_}, check);
  in_turns(delete_and_collect, back_up_on_second, {hour_, hour_}, check);
}

TEST_F(GarbageTest, ACollectorThatStoodStillHarmsNone) {
  make_half_dead();
  device_.write(8 * kKiB, noise(20, 9000));
  for (const std::chrono::milliseconds pause : {hours(1), hours(25), hours(24 * 31)}) {
    SCOPED_TRACE(pause);
    const auto outcomes = at_every_call([&] { collect(); },
                                        [&] {
                                          objects_.advance(pause / 2);
                                          const BackupRecord third = back_up_all(device_, second_);
                                          delete_backup(store_, lineage_, second_.info.uuid);
                                          back_up_all(device_, third);
                                          collect();
                                          objects_.advance(pause / 2);
                                        },
                                        [&] {
                                          EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
                                          check_backups();
                                          check_that_verify_is_clean();
                                          check_that_garbage_is_collected();
                                        });
    EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
    EXPECT_GT(outcomes.size(), 15U);
  }
}

TEST_F(GarbageTest, RewritesNothingWhileItIsNotKnownWhatAWriterNeeds) {
  make_half_dead();
  const Lease lease(store_, lineage_,
                    {.backup = Uuid::generate(), .builds_on = {Uuid::generate()}});
  const Collection collection = collect();
  EXPECT_THAT(collection.packs, IsEmpty());
  EXPECT_THAT(collection.not_rewritten, testing::HasSubstr("is being made"));
}

TEST_F(GarbageTest, RewritesNothingIfATreeIsDamaged) {
  make_half_dead();
  const std::string tree = pack_key(lineage_, second_.root->pack);
  Bytes bytes = objects_.get(tree, kMaxPackSize);
  bytes[50] ^= std::byte{1};
  objects_.put(tree, bytes);
  const auto before = objects_.objects();
  EXPECT_THAT(collect().not_rewritten, testing::HasSubstr(tree));
  EXPECT_EQ(objects_.objects().size(), before.size());
}

// Whoever put a plan may be slow, not dead: as long as he can act on it, it warns those who would
// use what it names.
TEST_F(GarbageTest, EndsAnothersPlanOnlyWhenNobodyCanActOnItAnyMore) {
  make_half_dead();
  const PackName kept = second_.packs.begin()->first;
  const PackName garbage{PackKind::kData, Uuid::generate(), 0};
  objects_.put(pack_key(lineage_, garbage), Bytes(1000));
  const auto put = [&](std::optional<PackName> pack, std::optional<PackName> rewrite) {
    RemovalPlan plan{.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate()),
                     .put = {},
                     .packs = {},
                     .rewrites = {},
                     .known = {}};
    if (pack) plan.packs.insert(*pack);
    if (rewrite) plan.rewrites.insert(*rewrite);
    put_plan(store_, plan);
    return plan.key;
  };
  const std::string of_kept = put(kept, {});
  const std::string of_garbage = put(garbage, {});
  const std::string of_rewrite = put({}, kept);
  const std::string of_nothing = put({}, {});
  collect(CollectionMode::kWhatNobodyRefersTo);
  EXPECT_FALSE(objects_.head(pack_key(lineage_, garbage)));  // though it is young
  EXPECT_TRUE(objects_.head(of_kept));
  EXPECT_FALSE(objects_.head(of_garbage));
  EXPECT_TRUE(objects_.head(of_rewrite));
  EXPECT_FALSE(objects_.head(of_nothing));
  objects_.advance(kRevocationAge);
  collect(CollectionMode::kWhatNobodyRefersTo);
  EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kPlans)), IsEmpty());
  check_backups();
}

TEST_F(GarbageTest, StopsWhenItIsAskedTo) {
  make_half_dead();
  std::stop_source stop;
  stop.request_stop();
  const auto before = objects_.objects().size();
  EXPECT_EQ(error_of([&] {
              collect_garbage(store_, lineage_, CollectionMode::kHalfDead, {}, stop.get_token());
            }).kind(),
            ErrorKind::kCancelled);
  EXPECT_EQ(objects_.objects().size(), before);
}

}  // namespace
}  // namespace convoy
