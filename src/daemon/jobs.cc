#include "daemon/jobs.h"

#include <spdlog/spdlog.h>

namespace convoy {

void Job::report(JobProgress progress) {
  const std::lock_guard lock(lock_);
  progress_ = progress;
}

JobProgress Job::progress() const {
  const std::lock_guard lock(lock_);
  return progress_;
}

bool Job::wait(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(lock_);
  return ended_changed_.wait_for(lock, timeout, [&] { return ended_; });
}

std::string Job::result() const {
  std::unique_lock lock(lock_);
  ended_changed_.wait(lock, [&] { return ended_; });
  if (failure_) throw Error(*failure_);
  return result_;
}

void Job::end(std::string result, std::optional<Error> failure) {
  const std::lock_guard lock(lock_);
  result_ = std::move(result);
  failure_ = std::move(failure);
  ended_ = true;
  ended_changed_.notify_all();
}

std::shared_ptr<Job> Jobs::start(std::string kind, std::string object,
                                 std::function<std::string(Job&)> work) {
  const std::lock_guard lock(lock_);
  if (stopped_) throw Error(ErrorKind::kUnavailable, "the daemon is stopping");
  // A thread that has ended is joined by whoever comes next.
  std::erase_if(entries_, [](const auto& entry) { return entry.second.job->wait({}); });

  const auto job = std::make_shared<Job>(++last_id_, std::move(kind), std::move(object));
  std::jthread thread([job, work = std::move(work)] {
    std::string result;
    std::optional<Error> failure;
    try {
      spdlog::info("{} started", job->description());
      result = work(*job);
      spdlog::info("{} done", job->description());
    } catch (Error& error) {
      failure = std::move(error);  // a copy could find no memory
    } catch (const std::exception& error) {
      failure = Error(ErrorKind::kInternal, "{}", error.what());
    }
    if (failure) spdlog::error("{} {} failed: {}", job->kind(), job->object(), failure->message());
    job->end(std::move(result), std::move(failure));
  });
  entries_.emplace(job->id(), Entry{job, std::move(thread)});
  return job;
}

std::vector<std::shared_ptr<Job>> Jobs::running() const {
  const std::lock_guard lock(lock_);
  std::vector<std::shared_ptr<Job>> jobs;
  for (const auto& [id, entry] : entries_) {
    if (!entry.job->wait({})) jobs.push_back(entry.job);
  }
  return jobs;
}

void Jobs::cancel(std::uint64_t id) {
  const std::lock_guard lock(lock_);
  const auto found = entries_.find(id);
  if (found == entries_.end() || found->second.job->wait({})) {
    throw Error(ErrorKind::kNotFound, "there is no job {} running", id);
  }
  found->second.job->cancel();
}

void Jobs::stop() {
  std::map<std::uint64_t, Entry> entries;
  {
    const std::lock_guard lock(lock_);
    stopped_ = true;
    entries.swap(entries_);
  }
  for (const auto& [id, entry] : entries) entry.job->cancel();
  entries.clear();  // joins
}

}  // namespace convoy
