// For tests of those who work on one lineage at once: runs them to any of their calls to the store,
// and lets something else happen there.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "backup/backup_testing.h"

namespace convoy {

// Lets two threads work in turns: it is the other one's when a thread has made so many calls, or
// has ended.
class Turns {
 public:
  // When a thread is stopped, its pause is done before the other one's turn begins.
  using Pauses = std::array<std::function<void()>, 2>;
  Turns(std::array<int, 2> calls, const Pauses& pauses) : calls_left_(calls), pauses_(pauses) {}

  // Does `work` as thread `who`; thread 0 begins. Errors of the kinds that callers are told to
  // expect are passed over.
  void run(std::size_t who, const std::function<void()>& work) {
    me() = who;
    wait();
    try {
      work();
    } catch (const Error& error) {
      EXPECT_THAT(error.kind(), testing::AnyOf(ErrorKind::kNotFound, ErrorKind::kUnavailable))
          << error.message();
    }
    pass_on(&ended_);
    me() = kNobody;
  }

  void before_call() {
    if (me() == kNobody) return;  // the thread that renews a lease
    if (calls_left_.at(me())-- != 0) return;
    pauses_.at(me())();
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
  const Pauses& pauses_;
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
      std::atomic<int> calls = 0;
      objects_.hook = [&](MemoryStore::Call, const std::string&) {
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
  // The pauses are done at the two switches.
  void in_turns(const std::function<void()>& first, const std::function<void()>& second,
                const Turns::Pauses& pauses, const std::function<void()>& check) {
    for (int i = 0;; ++i) {
      for (int j = 0;; ++j) {
        SCOPED_TRACE(testing::Message() << "switched at calls " << i << " and " << j);
        objects_.set_objects(start_);
        Turns turns({i, j}, pauses);
        objects_.hook = [&](MemoryStore::Call, const std::string&) { turns.before_call(); };
        {
          std::jthread second_thread([&] { turns.run(1, second); });
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
    objects_.advance(std::chrono::hours(25));
    delete_and_forget(back_up_all(device_).info.uuid);
    check_nothing_is_left_over();
    check_backups();
  }

  bool has_backup(const BackupRecord& record) {
    const auto backups = backups_of(store_, lineage_);
    return std::ranges::find(backups, record.info.uuid) != backups.end();
  }

  const std::function<void()> none_ = [] {};
  const std::function<void()> hour_ = [this] { objects_.advance(std::chrono::hours(1)); };
  TestDevice device_{kSize};
  BackupRecord parent_;
  MemoryStore::Objects start_;
  std::atomic<bool> dead_ = false;
};

}  // namespace convoy
