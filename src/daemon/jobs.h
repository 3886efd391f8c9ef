// Jobs: long pieces of work, each on a thread of its own, with progress to watch and a way to
// cancel it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace convoy {

struct JobProgress {
  std::uint64_t bytes_done = 0;
  std::uint64_t bytes_total = 0;

  bool operator==(const JobProgress&) const = default;
};

// Thread-safe.
class Job {
 public:
  Job(std::uint64_t id, std::string kind, std::string object)
      : id_(id), kind_(std::move(kind)), object_(std::move(object)) {}

  std::uint64_t id() const { return id_; }
  const std::string& kind() const { return kind_; }      // such as "backup"
  const std::string& object() const { return object_; }  // what it works on
  std::string description() const { return fmt::format("job {} ({} of {})", id_, kind_, object_); }

  // For the work: when this is requested, it throws kCancelled soon.
  std::stop_token stop_token() const { return stop_.get_token(); }
  void report(JobProgress progress);

  // For the watchers.
  void cancel() { stop_.request_stop(); }
  bool is_cancelled() const { return stop_.stop_requested(); }
  JobProgress progress() const;
  std::chrono::duration<double> elapsed() const {
    return std::chrono::steady_clock::now() - begun_;
  }
  // Waits until the job has ended, at most `timeout`. True if it has.
  bool wait(std::chrono::milliseconds timeout) const;
  // What the work returned; throws what it threw. Waits for its end.
  std::string result() const;

 private:
  friend class Jobs;
  void end(std::string result, std::optional<Error> failure);

  const std::uint64_t id_;
  const std::string kind_;
  const std::string object_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::stop_source stop_;

  mutable std::mutex lock_;
  mutable std::condition_variable ended_changed_;
  JobProgress progress_;
  bool ended_ = false;
  std::string result_;
  std::optional<Error> failure_;
};

// All running jobs. Thread-safe.
class Jobs {
 public:
  Jobs() = default;
  Jobs(const Jobs&) = delete;
  Jobs& operator=(const Jobs&) = delete;
  // As stop().
  ~Jobs() { stop(); }

  // Starts `work`. What it returns, a JSON text, is the job's result. Throws kUnavailable after
  // stop().
  std::shared_ptr<Job> start(std::string kind, std::string object,
                             std::function<std::string(Job&)> work);

  std::vector<std::shared_ptr<Job>> running() const;

  // Throws kNotFound if there is no such job running.
  void cancel(std::uint64_t id);

  // Cancels all and waits for their end.
  void stop();

 private:
  struct Entry {
    std::shared_ptr<Job> job;
    std::jthread thread;
  };

  mutable std::mutex lock_;
  bool stopped_ = false;
  std::uint64_t last_id_ = 0;
  std::map<std::uint64_t, Entry> entries_;
};

}  // namespace convoy
