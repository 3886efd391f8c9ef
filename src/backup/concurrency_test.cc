// Writers and removers at work on one lineage at once, stopped or overtaken between any two of
// their calls to the store. Whatever happens, a backup whose record is there can be restored.
#include <future>

#include "backup/concurrency_testing.h"
#include "backup/lease.h"

namespace convoy {
namespace {

using testing::AnyOf;

using Call = MemoryStore::Call;
using std::chrono::hours;
using std::chrono::minutes;
constexpr minutes kDay{24 * 60};

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

TEST_F(ConcurrencyTest, ABackupAndADeletionInTurnsHarmNone) {
  const auto back_up_on_parent = [&] { back_up_all(device_, parent_); };
  const auto delete_parent = [&] { delete_backup(store_, lineage_, parent_.info.uuid); };
  const auto check = [&] { check_backups(); };
  for (const auto& pause : {none_, hour_}) {
    for (const auto& second_pause : {none_, hour_}) {
      in_turns(back_up_on_parent, delete_parent, {pause, second_pause}, check);
      in_turns(delete_parent, back_up_on_parent, {pause, second_pause}, check);
    }
  }
}

// Hosts' clocks tell nothing: only that of the store, whichever way it differs from theirs.
TEST_F(ConcurrencyTest, AWriterAndARemoverAgreeWhateverTheirOwnClocksTell) {
  for (const minutes difference : {minutes(-60), -40 * kDay, 40 * kDay}) {
    const auto set_clock = [&] { objects_.set_clock(now() + difference); };
    set_clock();
    objects_.set_objects({});
    expected_.clear();
    store_ = Store::open_or_create(objects_, std::nullopt);
    parent_ = back_up_all(device_);
    device_.write(8 * kKiB, noise(2, 100));
    start_ = objects_.objects();
    const auto back_up_on_parent = [&] {
      set_clock();  // which the check before has advanced by a day
      back_up_all(device_, parent_);
    };
    const auto delete_parent = [&] { delete_backup(store_, lineage_, parent_.info.uuid); };
    const auto check = [&] {
      check_backups();
      check_that_garbage_is_collected();
    };
    EXPECT_EQ(at_every_call(back_up_on_parent, delete_parent, check).count(ErrorKind::kUnavailable),
              0U);
    EXPECT_GT(at_every_call(
                  back_up_on_parent,
                  [&] {
                    objects_.advance(hours(1));
                    delete_parent();
                  },
                  check)
                  .count(ErrorKind::kUnavailable),
              3U);
  }
}

TEST_F(ConcurrencyTest, AWriterThatStoodStillNoticesThatItsLeaseWasRevoked) {
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

// The store's clock may show the same time for the revocation, the removal and the commit.
TEST_F(ConcurrencyTest, WhatIsCommittedAfterARemovalIsVoidHoweverCoarseTheClock) {
  objects_.clock_step = std::chrono::milliseconds(8);
  bool is_committed = false;
  objects_.hook = [&](Call call, const std::string& key) {
    if (is_committed) die();
    if (call != Call::kPut || !parse_backup_key(key)) return;
    is_committed = true;
    objects_.advance(hours(1));
    delete_backup(store_, lineage_, parent_.info.uuid);
  };
  EXPECT_THROW(back_up_all(device_, parent_), Error);
  objects_.hook = nullptr;
  EXPECT_TRUE(is_committed);
  check_backups();
}

TEST_F(ConcurrencyTest, WhatIsCommittedAfterARemovalIsVoidWhoeverRevokedItsLease) {
  objects_.clock_step = std::chrono::milliseconds(8);
  int calls = 1;
  for (int at = 0; at < calls; ++at) {
    SCOPED_TRACE(testing::Message() << "at call " << at);
    objects_.set_objects(start_);
    dead_ = false;
    calls = 0;
    const auto writer = std::this_thread::get_id();
    std::optional<Uuid> backup;
    objects_.hook = [&](Call call, const std::string& key) {
      if (std::this_thread::get_id() != writer) {
        if (backup && calls++ == at) revoke(store_, lineage_, *backup);
        return;
      }
      if (backup) die();
      if (call == Call::kPut) backup = parse_backup_key(key);
      if (!backup) return;
      std::jthread([&] { delete_backup(store_, lineage_, parent_.info.uuid); }).join();
    };
    EXPECT_THROW(back_up_all(device_, parent_), Error);
    objects_.hook = nullptr;
    check_backups();
  }
  EXPECT_GT(calls, 10);
}

// A server may note the time of an object when its put begins, and show it only at the end.
TEST_F(ConcurrencyTest, WhatIsSeenLaterThanItsTimeTellsIsWaitedFor) {
  objects_.lag = std::chrono::milliseconds(200);
  MemoryStore::Objects late;
  objects_.hook = [&](Call call, const std::string& key) {
    if (!late.empty()) die();
    if (call != Call::kHead || !key.ends_with(".revoked") ||
        backups_of(store_, lineage_).size() < 2)
      return;
    late = objects_.objects();
    die();
  };
  EXPECT_THROW(back_up_all(device_, parent_), Error);
  objects_.hook = nullptr;
  dead_ = false;
  const Uuid backup = backups_of(store_, lineage_).back();
  const std::string record = backup_key(lineage_, backup);
  late = {{record, late.at(record)}};
  objects_.remove(record);
  revoke(store_, lineage_, backup);
  // The latest that is not void, and seen as late as can be.
  constexpr std::chrono::milliseconds kStep{50};
  late.at(record).modified =
      revocation_of(store_, lineage_, backup).value() + objects_.lag - std::chrono::milliseconds(1);

  std::chrono::milliseconds passed{0};
  const auto show = [&] {
    MemoryStore::Objects all = objects_.objects();
    all.insert(late.begin(), late.end());
    objects_.set_objects(all);
  };
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kPut && key.find("/gc/") != std::string::npos) {
      objects_.advance(kStep);
      passed += kStep;
    }
    if (passed >= 2 * objects_.lag - kStep) show();
  };
  const Store impatient = Store::open(objects_, {.garbage_grace = {}});
  collect_garbage(impatient, lineage_, CollectionMode::kWhatNobodyRefersTo, {}, {});
  objects_.hook = nullptr;
  show();
  EXPECT_EQ(backups_of(store_, lineage_).size(), 2U);
  check_backups();
}

// A backup that was committed after the remover's first look and deleted before its second: what it
// refers to is unknown to the remover, and to nobody else.
TEST_F(ConcurrencyTest, ABackupIsNotBuiltOnWhatARemoverDoesNotKnowToBeNeeded) {
  const BackupRecord passing = back_up_all(device_, parent_);
  const std::string passing_key = backup_key(lineage_, passing.info.uuid);
  const MemoryStore::Object passing_object = objects_.objects().at(passing_key);
  objects_.remove(passing_key);
  device_.write(515 * kKiB, noise(3, 100));

  std::promise<void> has_begun, may_go_on;
  const auto remover = std::this_thread::get_id();
  std::atomic<bool> is_writing = false;
  std::jthread writer;
  int plans = 0;
  objects_.hook = [&](Call call, const std::string& key) {
    if (std::this_thread::get_id() != remover) {
      if (call != Call::kPut || !parse_pack_key(key) || is_writing.exchange(true)) return;
      has_begun.set_value();
      may_go_on.get_future().wait();
      return;
    }
    if (call == Call::kPut && key.find("/gc/") != std::string::npos) ++plans;
    if (plans < 2 || call != Call::kList || writer.joinable()) return;
    if (key.ends_with("/leases/")) {
      MemoryStore::Objects all = objects_.objects();
      all[passing_key] = passing_object;
      objects_.set_objects(all);
    }
    if (!key.ends_with("/backups/")) return;
    writer = std::jthread([&] { back_up_all(device_, passing); });
    has_begun.get_future().wait();
    objects_.remove(passing_key);
  };
  delete_backup(store_, lineage_, parent_.info.uuid);
  may_go_on.set_value();
  ASSERT_TRUE(writer.joinable());
  writer.join();
  objects_.hook = nullptr;
  EXPECT_EQ(backups_of(store_, lineage_).size(), 1U);
  check_backups();
}

TEST_F(ConcurrencyTest, AWriterThatStoodStillGoesOnIfNobodyTookItForDead) {
  const auto outcomes =
      at_every_call([&] { back_up_all(device_, parent_); }, [&] { objects_.advance(hours(100)); },
                    [&] { check_backups(); });
  EXPECT_EQ(outcomes.count(std::nullopt), outcomes.size());
}

TEST_F(ConcurrencyTest, AWriterWhoseLeaseWasRevokedDoesNotEvenPutTheRecord) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (call != Call::kPut) return;
    if (key.ends_with(".tree")) {
      objects_.advance(hours(1));
      delete_backup(store_, lineage_, parent_.info.uuid);
    }
    EXPECT_EQ(key.find("/backups/"), std::string::npos);
  };
  EXPECT_EQ(error_of([&] { back_up_all(device_, parent_); }).kind(), ErrorKind::kUnavailable);
  objects_.hook = nullptr;
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

TEST_F(ConcurrencyTest, AFailedCallLeavesNoBackupAndCleansUp) {
  const auto outcomes =
      at_every_call([&] { back_up_all(device_, parent_); },
                    [&] { throw Error(ErrorKind::kNoSpace, "the disk is full"); },
                    [&] {
                      check_backups();
                      const std::size_t backups = backups_of(store_, lineage_).size();
                      if (backups == 1) {
                        EXPECT_THAT(keys_under(prefix_of(lineage_, LineagePart::kLeases)),
                                    testing::Each(testing::EndsWith(".revoked")));
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

TEST_F(ConcurrencyTest, TheLineageStaysWhileSomebodyWritesItsNextBackup) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (call == Call::kPut && key.find("/backups/") != std::string::npos) {
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

}  // namespace
}  // namespace convoy
