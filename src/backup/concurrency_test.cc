// Writers and removers at work on one lineage at once, stopped or overtaken between any two of
// their calls to the store. Whatever happens, a backup whose JSON is there can be restored.
#include <array>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "backup/backup_testing.h"
#include "backup/lease.h"

namespace convoy {
namespace {

using testing::AnyOf;
using testing::IsEmpty;
using Call = MemoryStore::Call;
using std::chrono::hours;
using std::chrono::minutes;

// Lets two threads work in turns: it is the other one's when a thread has made so many calls, or
// has ended.
class Turns {
 public:
  explicit Turns(std::array<int, 2> calls) : calls_left_(calls) {}

  // Does `work` as thread `who`; thread 0 begins. Errors of the kinds that callers are told to
  // expect are passed over.
  void run(std::size_t who, const std::function<void()>& work) {
    me() = who;
    wait();
    try {
      work();
    } catch (const Error& error) {
      EXPECT_THAT(error.kind(), AnyOf(ErrorKind::kNotFound, ErrorKind::kUnavailable))
          << error.message();
    }
    pass_on(&ended_);
    me() = kNobody;
  }

  void before_call() {
    if (me() == kNobody) return;  // the thread that renews a lease
    if (calls_left_.at(me())-- != 0) return;
    pass_on(&switched_);
    wait();
  }

  // Whether the thread has made more than its calls.
  bool switched(std::size_t who) const { return switched_.at(who); }

 private:
  static constexpr std::size_t kNobody = 2;

  static std::size_t& me() {
    thread_local std::size_t who = kNobody;
    return who;
  }

  void wait() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return turn_ == me() || ended_.at(1 - me()); });
  }

  void pass_on(std::array<bool, 2>* reason) {
    const std::scoped_lock lock(mutex_);
    reason->at(me()) = true;
    turn_ = 1 - me();
    wake_.notify_all();
  }

  std::array<int, 2> calls_left_;
  std::array<bool, 2> switched_ = {};
  std::array<bool, 2> ended_ = {};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::size_t turn_ = 0;
};

class ConcurrencyTest : public BackupTest {
 protected:
  static constexpr std::uint64_t kSize = 520 * kKiB;  // two leaves of chunks of 4 KiB

  ConcurrencyTest() {
    device_.write(0, noise(1, 16 * kKiB));
    device_.write(512 * kKiB, noise(1, 8 * kKiB));
    chunk_size_ = kMinChunkSize;
    parent_ = back_up_all(device_);
    device_.write(8 * kKiB, noise(2, 100));
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

  // Runs both from the same state, in turns: `first` up to its call `i`, `second` up to its call
  // `j`, and then each to its end. For every i and j that there are; after each run, `check`.
  // `pause` is done before `second` begins.
  void in_turns(const std::function<void()>& first, const std::function<void()>& second,
                const std::function<void()>& pause, const std::function<void()>& check) {
    for (int i = 0;; ++i) {
      for (int j = 0;; ++j) {
        SCOPED_TRACE(testing::Message() << "switched at calls " << i << " and " << j);
        objects_.set_objects(start_);
        Turns turns({i, j});
        objects_.hook = [&](Call, const std::string&) { turns.before_call(); };
        {
          std::jthread second_thread([&] {
            turns.run(1, [&] {
              pause();
              second();
            });
          });
          turns.run(0, first);
        }
        objects_.hook = nullptr;
        if (!turns.switched(0)) return;
        check();
        if (!turns.switched(1)) break;
      }
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

TEST_F(ConcurrencyTest, ABackupAndADeletionInTurnsHarmNone) {
  const auto back_up_on_parent = [&] { back_up_all(device_, parent_); };
  const auto delete_parent = [&] { delete_backup(store_, lineage_, parent_.info.uuid); };
  const auto check = [&] { check_backups(); };
  in_turns(back_up_on_parent, delete_parent, [] {}, check);
  in_turns(delete_parent, back_up_on_parent, [] {}, check);
  in_turns(back_up_on_parent, delete_parent, [&] { objects_.advance(hours(1)); }, check);
}

TEST_F(ConcurrencyTest, TwoDeletionsInTurnsHarmNone) {
  const BackupRecord second = back_up_all(device_, parent_);
  device_.write(515 * kKiB, noise(3, 3000));
  back_up_all(device_, second);
  start_ = objects_.objects();
  in_turns([&] { delete_backup(store_, lineage_, parent_.info.uuid); },
           [&] { delete_backup(store_, lineage_, second.info.uuid); }, [] {},
           [&] { check_backups(); });
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

TEST_F(ConcurrencyTest, AWriterWhoseLeaseLapsedDoesNotEvenPutTheJson) {
  objects_.hook = [&](Call call, const std::string& key) {
    if (call != Call::kPut) return;
    if (key.ends_with(".tree")) objects_.advance(hours(1));
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

TEST_F(ConcurrencyTest, ACancelledDeletionTellsWhetherTheBackupIsGone) {
  const BackupRecord second = back_up_all(device_, parent_);
  start_ = objects_.objects();
  std::stop_source stop;
  Error error(ErrorKind::kInternal, "");
  at_every_call(
      [&] {
        stop = std::stop_source();
        error =
            error_of([&] { delete_backup(store_, lineage_, parent_.info.uuid, stop.get_token()); });
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

TEST_F(ConcurrencyTest, TwoRemoversAtOnceHarmNone) {
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

TEST_F(ConcurrencyTest, WhatIsNotOursIsLeftAlone) {
  std::vector<std::string> foreign;
  for (const LineagePart part :
       {LineagePart::kBackups, LineagePart::kPacks, LineagePart::kLeases, LineagePart::kPlans}) {
    for (const char* const name : {"notes.txt", "copy-of.json", ".nfs0000000012345678"}) {
      foreign.push_back(prefix_of(lineage_, part) + name);
    }
  }
  // A later generation of a pack.
  foreign.push_back(pack_key(lineage_, {PackKind::kData, Uuid::generate(), 0}) + ".1");
  for (const std::string& key : foreign) objects_.put(key, as_bytes("x"));
  objects_.advance(hours(25));
  back_up_all(device_, parent_);
  delete_and_forget(parent_.info.uuid);
  for (const std::string& key : foreign) EXPECT_TRUE(objects_.head(key)) << key;
  check_backups();
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
