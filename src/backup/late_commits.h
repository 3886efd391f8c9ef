// When a remover's look at a lineage has found all that there will ever be.
#pragma once

#include <chrono>
#include <optional>
#include <set>

#include "backup/store.h"
#include "base/time.h"
#include "base/uuid.h"

namespace convoy {

// Backups whose leases were revoked, and that are complete all the same since they were committed
// before, or in that very moment: how long one may still come to light. A record of the same moment
// as its revocation counts as complete, and of that a store's clock may tell the second only. Of a
// store that notes times when a put begins, that moment lasts as long as a put may take
// (ObjectStore::time_lag).
//
// Who puts a lease after the first call is not waited for, however often that is revoked: such a
// writer has seen the remover's plan. Used by one thread.
class LateCommits {
 public:
  LateCommits(const Store& store, const Uuid& lineage) : store_(store), lineage_(lineage) {}

  // How long the caller has to wait, put its plan again, and look again; nothing if its look was
  // after the moment. `plan` is the time of the plan that it put before its look; nothing if
  // another has removed it. Throws kUnavailable if the store's clock does not come to that moment,
  // since it was set back; and what ObjectStore::list throws.
  std::optional<std::chrono::milliseconds> time_left(const std::optional<Timestamp>& plan);

 private:
  const Store& store_;
  const Uuid lineage_;
  std::optional<std::set<Uuid>> writers_;  // that there were at the first call
  std::optional<Uuid> awaited_;            // the one that was revoked last
  std::chrono::steady_clock::time_point give_up_;
};

}  // namespace convoy
