// Leases: how those who write backups keep others from removing what they build on.
//
// A writer puts its lease before it reads the parent's JSON and before its first pack, and puts it
// again and again until its backup is committed. Whether a lease has lapsed is judged by the times
// that the store gave the objects, never by a host's clock: the writer looks at the gaps between
// its own renewals, a remover at the age of the last one.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backup/store.h"
#include "base/time.h"
#include "base/uuid.h"

namespace convoy {

struct LeaseRecord {
  Uuid backup;                  // the one that is being written
  std::vector<Uuid> builds_on;  // those whose packs it will refer to
};

// A writer's own lease. Thread-safe.
class Lease {
 public:
  // Puts the lease and begins to renew it on a thread of its own. Throws what ObjectStore::put
  // throws.
  Lease(const Store& store, const Uuid& lineage, const LeaseRecord& record);
  // Ends the renewal, but leaves the lease as it is: it lapses by itself.
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // Renews it now. Throws kUnavailable if the lease ever lapsed, so that a remover may have taken
  // the writer for dead; else what the store throws.
  void renew();

  // Throws as renew() if a lapse is known already. Does not touch the store, and never waits.
  void check() const;

  // Throws as renew() if `time`, that of an object put after the last renewal, shows that the lease
  // had lapsed by then.
  void check_at(Timestamp time) const;

  // Ends the renewal and removes the lease.
  void release();

 private:
  void put_locked();
  bool lapsed_by(Timestamp time) const;
  void renew_until_stopped(const std::stop_token& stop);

  const Store store_;
  const std::string key_;
  const std::string text_;

  mutable std::mutex mutex_;  // held while the lease is put
  std::condition_variable_any wake_;
  std::optional<Timestamp> last_;
  std::atomic<bool> lapsed_ = false;

  std::jthread renewal_;  // last, since it uses all the others
};

// A lease as a remover finds it.
struct FoundLease {
  std::string key;
  Timestamp renewed;
  std::optional<LeaseRecord> record;  // nothing if it can't be understood
};

// All leases of a lineage.
std::vector<FoundLease> list_leases(const Store& store, const Uuid& lineage);

// False if the writer must have noticed by `now`, a time of the store, that the lease lapsed. Errs
// on the side of true by one renewal: the clocks of a store's servers may differ a little.
bool may_be_alive(const FoundLease& lease, Timestamp now, const StoreTimes& times);

}  // namespace convoy
