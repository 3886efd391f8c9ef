// Several threads for work that is made of pieces.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace convoy {

// Threads for work that both computes and waits for devices: two more than there are CPUs, so that
// some wait while the others compute. Each holds a few MiB, hence the end.
inline unsigned worker_count() {
  return std::clamp(std::thread::hardware_concurrency() + 2, 3U, 16U);
}

// Threads that fetch from a store: a request to a far one takes 100 ms, so there are several
// whatever the CPUs.
inline unsigned fetcher_count() {
  return std::max(worker_count(), 8U);
}

// Does pieces of work at once, and ends each one in the order in which they were given. Used by one
// thread.
template <typename Piece>
class OrderedWorkers {
 public:
  // `work` is called for several pieces at once, with the number of its thread, below `threads`;
  // then `finish` for one piece after the other, in order, on whichever thread is free. At most
  // `limit` pieces, at least one, are unfinished at any time: so much memory do they take.
  using Work = std::function<void(Piece& piece, unsigned thread)>;
  using Finish = std::function<void(Piece& piece)>;
  // `meanwhile` is called, by the one who adds, some times a second while that one waits; what it
  // throws ends the wait.
  using Meanwhile = std::function<void()>;
  OrderedWorkers(
      unsigned threads, std::size_t limit, Work work, Finish finish, Meanwhile meanwhile = [] {})
      : limit_(limit),
        work_(std::move(work)),
        finish_(std::move(finish)),
        meanwhile_(std::move(meanwhile)) {
    try {
      for (unsigned thread = 0; thread < threads; ++thread)
        threads_.emplace_back([this, thread] { run(thread); });
    } catch (...) {
      stop();  // those that wait for work already
      throw;
    }
  }
  OrderedWorkers(const OrderedWorkers&) = delete;
  OrderedWorkers& operator=(const OrderedWorkers&) = delete;
  ~OrderedWorkers() { stop(); }

  // Waits for room, then hands the piece over. Throws the first thing that `work` or `finish` threw
  // on any thread; pieces that no thread has begun by then are dropped.
  void add(Piece piece) {
    std::unique_lock lock(mutex_);
    await(lock, [this] { return failure_ || entries_.size() < limit_; });
    rethrow();
    entries_.push_back({.piece = std::move(piece)});
    changed_.notify_all();
  }

  // Waits until all pieces are finished. Throws as add().
  void wait() {
    std::unique_lock lock(mutex_);
    await(lock, [this] { return failure_ || entries_.empty(); });
    rethrow();
  }

  // Drops what no thread has begun, and waits for the end of the rest. Nothing can be added after
  // it.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
      changed_.notify_all();
    }
    threads_.clear();
  }

 private:
  enum class State { kWaiting, kBegun, kDone };
  struct Entry {
    Piece piece;
    State state = State::kWaiting;
  };

  template <typename Condition>
  void await(std::unique_lock<std::mutex>& lock, Condition&& condition) {
    while (!changed_.wait_for(lock, std::chrono::milliseconds(100), condition)) {
      lock.unlock();
      meanwhile_();
      lock.lock();
    }
  }

  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

  bool ended() const { return stopped_ || failure_; }

  // A deque's elements stay where they are when others come and go at its ends.
  Entry* next_waiting() {
    const auto found = std::ranges::find(entries_, State::kWaiting, &Entry::state);
    return found == entries_.end() ? nullptr : &*found;
  }

  void run(unsigned thread) {
    std::unique_lock lock(mutex_);
    while (true) {
      Entry* entry = nullptr;
      changed_.wait(lock, [&] { return ended() || (entry = next_waiting()) != nullptr; });
      if (ended()) return;
      entry->state = State::kBegun;
      unlocked(lock, [&] { work_(entry->piece, thread); });
      if (failure_) return;
      entry->state = State::kDone;
      finish_all(lock);
    }
  }

  void finish_all(std::unique_lock<std::mutex>& lock) {
    if (finishing_) return;  // that thread sees this piece, too
    finishing_ = true;
    while (!failure_ && !entries_.empty() && entries_.front().state == State::kDone) {
      unlocked(lock, [&] { finish_(entries_.front().piece); });
      if (failure_) break;
      entries_.pop_front();
      changed_.notify_all();
    }
    finishing_ = false;
  }

  template <typename Action>
  void unlocked(std::unique_lock<std::mutex>& lock, Action&& action) {
    lock.unlock();
    std::exception_ptr thrown;
    try {
      action();
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    if (!thrown) return;
    if (!failure_) failure_ = thrown;
    changed_.notify_all();
  }

  const std::size_t limit_;
  const Work work_;
  const Finish finish_;
  const Meanwhile meanwhile_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> entries_;
  std::exception_ptr failure_;
  bool finishing_ = false;
  bool stopped_ = false;

  std::vector<std::jthread> threads_;  // last, since they use all the others
};

}  // namespace convoy
