// Removers that stand still, die, are cancelled or come in twos, and what they leave alone.
#include "backup/concurrency_testing.h"
#include "backup/lease.h"

namespace convoy {
namespace {

using Call = MemoryStore::Call;
using std::chrono::hours;
using std::chrono::minutes;
constexpr minutes kDay{24 * 60};

class RemoverTest : public ConcurrencyTest {};

// Stopped at each of its calls, for longer than a lease, than the grace of garbage, and than
// revocations are kept, while others do all that can be done.
TEST_F(RemoverTest, ARemoverThatStoodStillHarmsNone) {
  back_up_all(device_, parent_);
  device_.write(512 * kKiB, noise(3, 3000));
  start_ = objects_.objects();
  for (const std::chrono::milliseconds pause :
       {minutes(9), minutes(14), minutes(60), kDay + hours(1), kDay * 31}) {
    SCOPED_TRACE(pause);
    const auto outcomes = at_every_call(
        [&] { delete_backup(store_, lineage_, parent_.info.uuid); },
        [&] {
          // One is being made on the parent, one on what is left if that is gone, and
          // one of them is deleted again.
          const Lease lease(store_, lineage_, {.backup = Uuid::generate(), .builds_on = {}});
          objects_.advance(pause / 2);
          const std::optional<BackupRecord> base =
              has_backup(parent_) ? std::optional(parent_) : std::nullopt;
          const BackupRecord passing = back_up_all(device_, base);
          back_up_all(device_, passing);
          delete_backup(store_, lineage_, passing.info.uuid);
          collect_garbage(store_, lineage_, CollectionMode::kHalfDead, {}, {});
          objects_.advance(pause / 2);
        },
        [&] {
          EXPECT_FALSE(has_backup(parent_));
          EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
          check_backups();
          check_that_garbage_is_collected();
        });
    EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
    EXPECT_GT(outcomes.size(), 15U);
  }
}

TEST_F(RemoverTest, TwoDeletionsInTurnsHarmNone) {
  const BackupRecord second = back_up_all(device_, parent_);
  device_.write(515 * kKiB, noise(3, 3000));
  back_up_all(device_, second);
  start_ = objects_.objects();
  in_turns([&] { delete_backup(store_, lineage_, parent_.info.uuid); },
           [&] { delete_backup(store_, lineage_, second.info.uuid); }, {none_, none_},
           [&] { check_backups(); });
}

TEST_F(RemoverTest, ARevocationFromTheFutureIsNamed) {
  objects_.advance(hours(1));
  revoke(store_, lineage_, Uuid::generate());
  objects_.advance(-hours(1));
  const Store impatient = Store::open(objects_, {.clock_patience = std::chrono::milliseconds(100)});
  const Error error = error_of([&] { delete_backup(impatient, lineage_, parent_.info.uuid); });
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(error.message(), testing::HasSubstr("was the clock set back?"));
  EXPECT_THAT(error.message(), testing::StartsWith("the backup is deleted, but"));
  EXPECT_FALSE(has_backup(parent_));
}

TEST_F(RemoverTest, ADeadWritersPacksAreKeptForADay) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (dead_ || (call == Call::kPut && key.find("/backups/") != std::string::npos)) die();
  };
  EXPECT_THROW(back_up_all(device_, parent_), Error);
  objects_.hook = nullptr;
  const std::size_t packs = pack_keys().size();
  const std::size_t needed = parent_.packs.size();
  EXPECT_GT(packs, needed);

  const auto collect = [&] {
    collect_garbage(store_, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
  };
  objects_.advance(hours(23));
  collect();
  EXPECT_EQ(pack_keys().size(), packs);
  objects_.advance(hours(2));
  collect();
  EXPECT_EQ(pack_keys().size(), needed);
  check_nothing_is_left_over();
}

TEST_F(RemoverTest, ALivingWritersPacksAreKeptHoweverOldTheyAre) {
  const Store impatient =
      Store::open(objects_, {.garbage_grace = std::chrono::milliseconds::zero()});
  // There is no such backup, but the search for garbage takes place all the same.
  const auto remove_garbage = [&] {
    EXPECT_EQ(error_of([&] { delete_backup(impatient, lineage_, Uuid::generate()); }).kind(),
              ErrorKind::kNotFound);
  };
  const auto outcomes = at_every_call([&] { back_up_all(device_, parent_); }, remove_garbage,
                                      [&] { check_backups(); });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
}

TEST_F(RemoverTest, ARemoverThatDiesIsFinishedByTheNext) {
  back_up_all(device_, parent_);
  start_ = objects_.objects();
  at_every_call(
      [&] { delete_backup(store_, lineage_, parent_.info.uuid); }, [&] { die(); },
      [&] {
        check_backups();
        const bool has_plan = !keys_under(prefix_of(lineage_, LineagePart::kPlans)).empty();
        if (!has_plan) objects_.advance(hours(25));
        const Error error = error_of([&] { delete_backup(store_, lineage_, parent_.info.uuid); });
        EXPECT_FALSE(has_backup(parent_)) << error.message();
        check_backups();
        check_nothing_is_left_over();
      });
}

TEST_F(RemoverTest, ACancelledDeletionTellsWhetherTheBackupIsGone) {
  const BackupRecord second = back_up_all(device_, parent_);
  start_ = objects_.objects();
  std::stop_source stop;
  Error error(ErrorKind::kInternal, "");
  at_every_call(
      [&] {
        stop = std::stop_source();
        error = error_of(
            [&] { delete_backup(store_, lineage_, parent_.info.uuid, {}, stop.get_token()); });
      },
      [&] { stop.request_stop(); },
      [&] {
        if (error.kind() == ErrorKind::kCancelled) {
          EXPECT_EQ(error.message() == "the deletion was cancelled", has_backup(parent_));
        } else {
          EXPECT_FALSE(has_backup(parent_)) << error.message();
        }
        EXPECT_EQ(restored(store_, second), device_.content());
        delete_and_forget(back_up_all(device_).info.uuid);
      });
  check_that_garbage_is_collected();
}

TEST_F(RemoverTest, TwoRemoversAtOnceHarmNone) {
  const BackupRecord second = back_up_all(device_, parent_);
  device_.write(515 * kKiB, noise(3, 3000));
  const BackupRecord third = back_up_all(device_, second);
  start_ = objects_.objects();
  const auto outcomes =
      at_every_call([&] { delete_backup(store_, lineage_, parent_.info.uuid); },
                    [&] { delete_backup(store_, lineage_, second.info.uuid); },
                    [&] {
                      EXPECT_EQ(backups_of(store_, lineage_), std::vector{third.info.uuid});
                      check_backups();
                      check_that_garbage_is_collected();
                    });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
}

TEST_F(RemoverTest, WithTheLastBackupAllOfTheLineageGoes) {
  objects_.put(pack_key(lineage_, {PackKind::kData, Uuid::generate(), 0}), {});  // of a dead writer
  delete_and_forget(parent_.info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

TEST_F(RemoverTest, WhatIsNotOursIsLeftAlone) {
  std::vector<std::string> foreign;
  for (const LineagePart part :
       {LineagePart::kBackups, LineagePart::kPacks, LineagePart::kLeases, LineagePart::kPlans}) {
    for (const char* const name : {"notes.txt", "copy-of.json", ".nfs0000000012345678"}) {
      foreign.push_back(prefix_of(lineage_, part) + name);
    }
  }
  foreign.push_back(pack_key(lineage_, {PackKind::kData, Uuid::generate(), 0}) + ".1");
  for (const std::string& key : foreign) objects_.put(key, as_bytes("x"));
  objects_.advance(hours(25));
  back_up_all(device_, parent_);
  delete_and_forget(parent_.info.uuid);
  for (const std::string& key : foreign) EXPECT_TRUE(objects_.head(key)) << key;
  check_backups();
}

}  // namespace
}  // namespace convoy
