#include "daemon/job_stream.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "daemon/request_fields.h"

namespace convoy {
namespace {

// Often enough for a bar that moves, and for a client that has left to be noticed soon.
constexpr std::chrono::milliseconds kStep{200};

class JobStream {
 public:
  explicit JobStream(std::shared_ptr<Job> job) : job_(std::move(job)) {}
  JobStream(const JobStream&) = delete;
  JobStream& operator=(const JobStream&) = delete;
  ~JobStream() { job_->cancel(); }  // of a job that has ended, it means nothing

  std::optional<std::string> next() {
    if (complete_) return std::nullopt;
    // The first line at once: it tells the client whom to cancel.
    if (std::exchange(announced_, true) && job_->wait(kStep)) {
      complete_ = true;
      return end_line();
    }
    return to_text({{"Job", job_view(*job_)}}) + "\n";
  }

 private:
  std::string end_line() const {
    try {
      return R"({"Result":)" + job_->result() + "}\n";
    } catch (const Error& error) {
      return error_text(error) + "\n";
    }
  }

  std::shared_ptr<Job> job_;
  bool announced_ = false;
  bool complete_ = false;
};

}  // namespace

nlohmann::ordered_json job_view(const Job& job) {
  const JobProgress progress = job.progress();
  const double rate = static_cast<double>(progress.bytes_done) / job.elapsed().count();
  nlohmann::ordered_json view = {{"ID", std::to_string(job.id())},
                                 {"Kind", job.kind()},
                                 {"Object", job.object()},
                                 {"State", job.is_cancelled() ? "cancelling" : "running"},
                                 {"BytesDone", progress.bytes_done},
                                 {"BytesTotal", progress.bytes_total},
                                 {"BytesPerSecond", static_cast<std::uint64_t>(rate)}};
  if (progress.bytes_done > 0) {
    const auto left = progress.bytes_total - std::min(progress.bytes_done, progress.bytes_total);
    view["SecondsLeft"] = static_cast<std::uint64_t>(static_cast<double>(left) / rate);
  }
  return view;
}

HttpResponse stream_job(std::shared_ptr<Job> job) {
  const auto stream = std::make_shared<JobStream>(std::move(job));
  return {200, "application/x-ndjson", "", [stream] { return stream->next(); }};
}

}  // namespace convoy
