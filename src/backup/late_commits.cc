#include "backup/late_commits.h"

#include <algorithm>
#include <utility>

#include "backup/layout.h"
#include "backup/lease.h"
#include "base/error.h"

namespace convoy {
namespace {

// How often a store is asked whether its clock has gone on. Most tell milliseconds; those with a
// lag seconds.
constexpr std::chrono::milliseconds kPoll{20};
constexpr std::chrono::milliseconds kCoarsePoll{1000};

}  // namespace

std::optional<std::chrono::milliseconds> LateCommits::time_left(
    const std::optional<Timestamp>& plan) {
  const LeaseList list = list_leases_and_revocations(store_, lineage_);
  if (!writers_) {
    writers_.emplace();
    for (const auto* const part : {&list.leases, &list.revocations})
      for (const auto& [backup, time] : *part) writers_->insert(backup);
  }
  std::pair<Uuid, Timestamp> newest;
  for (const auto& revocation : list.revocations) {
    if (writers_->contains(revocation.first) && revocation.second >= newest.second)
      newest = revocation;
  }
  const Timestamp end = end_of_commits(store_, newest.second);
  if (plan && end < *plan) return std::nullopt;

  const auto lag = store_.objects().time_lag();
  const std::chrono::milliseconds patience = store_.times().clock_patience + 2 * lag;
  const auto now = std::chrono::steady_clock::now();
  if (std::exchange(awaited_, newest.first) != newest.first) give_up_ = now + patience;
  if (now > give_up_)
    throw Error(ErrorKind::kUnavailable,
                "{} has a time that the store's clock has not reached: was the clock set back? "
                "Nothing can be removed before {}",
                revocation_key(lineage_, newest.first), format_rfc3339(end));
  const auto poll = lag.count() > 0 ? kCoarsePoll : kPoll;
  const auto left = plan ? end - *plan : std::chrono::milliseconds(0);
  return std::clamp<std::chrono::milliseconds>(left, poll, std::max(poll, patience));
}

}  // namespace convoy
