// Writers and removers at work on one lineage at once, stopped or overtaken between any two of
// their calls to the store. Whatever happens, a backup whose JSON is there can be restored.
#include <set>

#include "backup/backup_testing.h"
#include "backup/lease.h"
#include "backup/removal_plan.h"

namespace convoy {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::IsEmpty;
using Call = MemoryStore::Call;
using std::chrono::hours;
using std::chrono::minutes;

class ConcurrencyTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kSize = kMiB;  // two leaves of chunks of 4 KiB

  ConcurrencyTest() {
    device_.write(0, noise(1, kSize));
    chunk_size_ = kMinChunkSize;
    parent_ = back_up_all(device_);
    device_.write(100 * kKiB, noise(2, 100));
    start_ = objects_.objects();
  }

  // Runs `action` anew for each of its calls to the store, from the same state, with `interrupt`
  // before that call; and then `check`. Ends when the action makes fewer calls. Returns how the
  // runs ended: nothing stands for success.
  std::multiset<std::optional<ErrorKind>> at_every_call(const std::function<void()>& action,
                                                        const std::function<void()>& interrupt,
                                                        const std::function<void()>& check) {
    std::multiset<std::optional<ErrorKind>> outcomes;
    for (int at = 0;; ++at) {
      SCOPED_TRACE(testing::Message() << "at call " << at);
      objects_.set_objects(start_);
      dead_ = false;
      int calls = 0;
      objects_.hook = [&](Call, const std::string&) {
        if (dead_) die();
        if (calls++ == at) interrupt();
      };
      std::optional<ErrorKind> outcome;
      try {
        action();
      } catch (const Error& error) {
        outcome = error.kind();
      }
      objects_.hook = nullptr;
      if (calls <= at) return outcomes;
      outcomes.insert(outcome);
      check();
    }
  }

  // This call fails and all that come after, as if the process or its host had died.
  void die() {
    dead_ = true;
    throw Error(ErrorKind::kIo, "power cut");
  }

  // What is garbage is gone when a backup has been made and deleted a day later.
  void check_that_garbage_is_collected() {
    objects_.advance(hours(25));
    delete_and_forget(back_up_all(device_).info.uuid);
    check_nothing_is_left_over();
    check_backups();
  }

  bool has_backup(const BackupRecord& record) {
    const auto backups = backups_of(store_, lineage_);
    return std::ranges::find(backups, record.info.uuid) != backups.end();
  }

  TestDevice device_{kSize};
  BackupRecord parent_;
  MemoryStore::Objects start_;
  bool dead_ = false;
};

TEST_F(ConcurrencyTest, DeletingTheParentDuringABackupHarmsNone) {
  const auto outcomes = at_every_call([&] { back_up_all(device_, parent_); },
                                      [&] { delete_backup(store_, lineage_, parent_.info.uuid); },
                                      [&] {
                                        check_backups();
                                        check_that_garbage_is_collected();
                                      });
  EXPECT_THAT(outcomes, testing::Each(AnyOf(std::nullopt, ErrorKind::kNotFound)));
  EXPECT_GT(outcomes.count(std::nullopt), 5U);
  EXPECT_GT(outcomes.count(ErrorKind::kNotFound), 0U);
}

TEST_F(ConcurrencyTest, ABackupOnTheBackupThatIsBeingDeletedHarmsNone) {
  std::multiset<std::optional<ErrorKind>> backups;
  const auto back_up = [&] {
    try {
      back_up_all(device_, parent_);
      backups.insert(std::nullopt);
    } catch (const Error& error) {
      backups.insert(error.kind());
    }
  };
  const auto outcomes =
      at_every_call([&] { delete_backup(store_, lineage_, parent_.info.uuid); }, back_up,
                    [&] {
                      EXPECT_FALSE(has_backup(parent_));
                      check_backups();
                      check_that_garbage_is_collected();
                    });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
  EXPECT_GT(backups.count(std::nullopt), 0U);
  EXPECT_GT(backups.count(ErrorKind::kNotFound), 3U);
  EXPECT_EQ(backups.count(std::nullopt) + backups.count(ErrorKind::kNotFound), backups.size());
}

TEST_F(ConcurrencyTest, AWriterThatStoodStillNoticesThatItsLeaseLapsed) {
  const auto outcomes = at_every_call([&] { back_up_all(device_, parent_); },
                                      [&] {
                                        objects_.advance(hours(1));
                                        delete_backup(store_, lineage_, parent_.info.uuid);
                                      },
                                      [&] {
                                        check_backups();
                                        check_that_garbage_is_collected();
                                      });
  EXPECT_GT(outcomes.count(ErrorKind::kUnavailable), 3U);
  // Only before its lease is put, or after its JSON is, does it not matter.
  EXPECT_LE(outcomes.count(std::nullopt), 4U);
}

TEST_F(ConcurrencyTest, AWriterThatStoodStillFailsEvenIfNobodyRemovedAnything) {
  const auto outcomes =
      at_every_call([&] { back_up_all(device_, parent_); }, [&] { objects_.advance(minutes(10)); },
                    [&] { check_backups(); });
  EXPECT_GT(outcomes.count(ErrorKind::kUnavailable), 3U);
}

TEST_F(ConcurrencyTest, AStepOfTheClockShorterThanTheLeaseHarmsNobody) {
  const auto outcomes = at_every_call([&] { back_up_all(device_, parent_); },
                                      [&] {
                                        objects_.advance(minutes(9));
                                        delete_backup(store_, lineage_, parent_.info.uuid);
                                      },
                                      [&] { check_backups(); });
  EXPECT_EQ(outcomes.count(ErrorKind::kUnavailable), 0U);
}

TEST_F(ConcurrencyTest, AWriterThatDiesLeavesNoBackupAndNothingForEver) {
  const auto outcomes = at_every_call([&] { back_up_all(device_, parent_); }, [&] { die(); },
                                      [&] {
                                        EXPECT_TRUE(has_backup(parent_));
                                        check_backups();
                                        check_that_garbage_is_collected();
                                      });
  // The last call, which removes the lease, comes after the commit.
  EXPECT_EQ(outcomes.count(std::nullopt), 1U);
}

TEST_F(ConcurrencyTest, ADeadWritersPacksAreKeptForADay) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (dead_ || (call == Call::kPut && key.find("/backups/") != std::string::npos)) die();
  };
  EXPECT_THROW(back_up_all(device_, parent_), Error);
  objects_.hook = nullptr;
  const std::size_t packs = pack_keys().size();
  const std::size_t needed = parent_.packs.size();
  EXPECT_GT(packs, needed);

  objects_.advance(hours(23));
  delete_and_forget(back_up_all(device_, parent_).info.uuid);
  EXPECT_EQ(pack_keys().size(), packs);
  objects_.advance(hours(2));
  delete_and_forget(back_up_all(device_, parent_).info.uuid);
  EXPECT_EQ(pack_keys().size(), needed);
  check_nothing_is_left_over();
}

TEST_F(ConcurrencyTest, ALivingWritersPacksAreKeptHoweverOldTheyAre) {
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

TEST_F(ConcurrencyTest, ARemoverThatDiesIsFinishedByTheNext) {
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

TEST_F(ConcurrencyTest, TwoRemoversAtOnceHarmNone) {
  const BackupRecord second = back_up_all(device_, parent_);
  device_.write(700 * kKiB, noise(3, 5000));
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

TEST_F(ConcurrencyTest, AFailedCallLeavesNoBackupAndCleansUp) {
  const auto outcomes = at_every_call(
      [&] { back_up_all(device_, parent_); },
      [&] { throw Error(ErrorKind::kNoSpace, "the disk is full"); },
      [&] {
        check_backups();
        const std::size_t backups = backups_of(store_, lineage_).size();
        if (backups == 1) {
          EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kLeases)), IsEmpty());
        }
        check_that_garbage_is_collected();
      });
  EXPECT_GT(outcomes.count(ErrorKind::kNoSpace), 8U);
}

TEST_F(ConcurrencyTest, PacksAreRemovedAtOnceWhenABackupFailsBeforeTheCommit) {
  const auto packs = pack_keys();
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kPut && key.ends_with(".tree")) {
      throw Error(ErrorKind::kNoSpace, "the disk is full");
    }
  };
  EXPECT_EQ(error_of([&] { back_up_all(device_, parent_); }).kind(), ErrorKind::kNoSpace);
  objects_.hook = nullptr;
  EXPECT_EQ(pack_keys(), packs);
  check_nothing_is_left_over();
}

TEST_F(ConcurrencyTest, WithTheLastBackupAllOfTheLineageGoes) {
  objects_.put(pack_key(lineage_, {PackKind::kData, Uuid::generate(), 0}), {});  // of a dead writer
  delete_and_forget(parent_.info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

TEST_F(ConcurrencyTest, TheLineageStaysWhileSomebodyWritesItsNextBackup) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kPut && key.ends_with(".tree")) {
      delete_backup(store_, lineage_, parent_.info.uuid);
    }
  };
  back_up_all(device_, parent_);
  objects_.hook = nullptr;
  EXPECT_TRUE(objects_.head(volume_key(lineage_)));
  check_backups();
}

TEST_F(ConcurrencyTest, TwoBackupsAtOnceOnOneParentAreBothWhole) {
  const auto outcomes =
      at_every_call([&] { back_up_all(device_, parent_); }, [&] { back_up_all(device_, parent_); },
                    [&] {
                      EXPECT_EQ(backups_of(store_, lineage_).size(), 3U);
                      check_backups();
                      check_nothing_is_left_over();
                    });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
}

// A remover's plan, as one that has just died would leave it.
class PlanTest : public ConcurrencyTest {
 protected:
  RemovalPlan plan_of_packs(std::vector<PackName> packs) {
    return {.key = json_key(lineage_, LineagePart::kPlans, Uuid::generate()),
            .packs = std::move(packs)};
  }

  // Puts the plan just before a backup reads the plans.
  Error back_up_with(const std::function<RemovalPlan(const Uuid& backup)>& plan_for) {
    Uuid backup;
    objects_.hook = [&, this](Call call, const std::string& key) {
      if (call == Call::kPut && key.ends_with(".tree")) {
        backup = parse_pack_name(key.substr(key.rfind('/') + 1))->backup;
      }
      if (call == Call::kList && key == prefix_of(lineage_, LineagePart::kPlans)) {
        put_plan(store_, plan_for(backup));
      }
    };
    const Error error = error_of([&] { back_up_all(device_, parent_); });
    objects_.hook = nullptr;
    return error;
  }
};

TEST_F(PlanTest, ThatNamesAPackOfTheBackupsOwnMakesItFail) {
  const Error error = back_up_with(
      [&](const Uuid& backup) { return plan_of_packs({{PackKind::kData, backup, 0}}); });
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr("is being removed"));
  check_backups();
}

TEST_F(PlanTest, ThatNamesAPackOfADeletedParentMakesTheBackupFail) {
  const Error error = back_up_with([&](const Uuid&) {
    objects_.remove(json_key(lineage_, LineagePart::kBackups, parent_.info.uuid));
    return plan_of_packs({parent_.packs.begin()->first});
  });
  EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  EXPECT_THAT(error.message(), HasSubstr(to_string(parent_.packs.begin()->first)));
}

TEST_F(PlanTest, OfADeadRemoverDoesNotStopBackupsOnAParentThatIsThere) {
  const Error error =
      back_up_with([&](const Uuid&) { return plan_of_packs({parent_.packs.begin()->first}); });
  EXPECT_EQ(error.message(), "no error was thrown");
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  check_backups();
}

TEST_F(PlanTest, IsIgnoredIfItIsDamaged) {
  const std::string key = json_key(lineage_, LineagePart::kPlans, Uuid::generate());
  objects_.put(key, as_bytes("{\"version\":1,\"packs\":[\"../../x\"]}"));
  const BackupRecord second = back_up_all(device_, parent_);
  delete_and_forget(second.info.uuid);
  EXPECT_FALSE(objects_.head(key));
  check_backups();
  check_nothing_is_left_over();
}

TEST_F(PlanTest, NeverRemovesWhatABackupRefersTo) {
  std::vector<PackName> packs;
  for (const auto& [pack, use] : parent_.packs) packs.push_back(pack);
  put_plan(store_, plan_of_packs(packs));
  delete_and_forget(back_up_all(device_, parent_).info.uuid);
  check_backups();
  check_nothing_is_left_over();
}

class LeaseTest : public BackupTest {
 protected:
  const Uuid backup_ = Uuid::generate();

  std::vector<std::string> lease_keys() {
    return keys_under(prefix_of(lineage_, LineagePart::kLeases));
  }

  static bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return condition();
  }
};

TEST_F(LeaseTest, IsRenewedAndTriedAgainAndThenRemoved) {
  std::atomic<int> puts = 0;
  objects_.hook = [&](Call call, const std::string&) {
    if (call == Call::kPut && ++puts == 2) throw Error(ErrorKind::kIo, "a passing failure");
  };
  const Store store =
      Store::open(objects_, StoreTimes{.lease_renewal = std::chrono::milliseconds(1)});
  Lease lease(store, lineage_, {.backup = backup_, .builds_on = {}});
  EXPECT_TRUE(eventually([&] { return puts > 4; }));
  lease.check();
  lease.release();
  EXPECT_THAT(lease_keys(), IsEmpty());
  const int puts_so_far = puts;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(puts, puts_so_far);
}

TEST_F(LeaseTest, KnowsALapseFromThenOn) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(kLeaseDuration - std::chrono::milliseconds(1));
  lease.renew();
  objects_.advance(kLeaseDuration);
  lease.check();  // nothing is known yet
  EXPECT_EQ(error_of([&] { lease.renew(); }).kind(), ErrorKind::kUnavailable);
  EXPECT_THROW(lease.renew(), Error);
  EXPECT_THROW(lease.check(), Error);
}

TEST_F(LeaseTest, TakesAClockSetBackForALapse) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.advance(-hours(1));
  EXPECT_THROW(lease.renew(), Error);
}

TEST_F(LeaseTest, ThatWasRemovedHasLapsed) {
  Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {}});
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kHead) objects_.remove(key);
  };
  EXPECT_THROW(lease.renew(), Error);
  objects_.hook = nullptr;
}

TEST_F(LeaseTest, IsAliveToOthersLongerThanToItsWriter) {
  const Lease lease(store_, lineage_, {.backup = backup_, .builds_on = {Uuid::generate()}});
  const auto found = list_leases(store_, lineage_);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].record->backup, backup_);
  EXPECT_EQ(found[0].record->builds_on.size(), 1U);
  const Timestamp renewed = found[0].renewed;
  EXPECT_TRUE(may_be_alive(found[0], renewed + kLeaseDuration, store_.times()));
  EXPECT_FALSE(may_be_alive(found[0], renewed + kLeaseDuration + kLeaseRenewal, store_.times()));
}

TEST_F(LeaseTest, ThatCantBeUnderstoodKeepsEverythingWhileItIsAlive) {
  TestDevice device(kMiB);
  device.write(0, noise(1, kMiB));
  const BackupRecord record = back_up_all(device);
  const std::string key = json_key(lineage_, LineagePart::kLeases, Uuid::generate());
  objects_.put(key, as_bytes("{\"version\":2}"));
  const auto packs = pack_keys();
  delete_and_forget(record.info.uuid);
  EXPECT_EQ(pack_keys(), packs);

  objects_.advance(hours(25));
  delete_and_forget(back_up_all(device).info.uuid);
  EXPECT_THAT(keys_under(""), testing::ElementsAre(kStoreKey));
}

}  // namespace
}  // namespace convoy
