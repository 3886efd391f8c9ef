// Leases: how those who write backups keep others from removing what they build on.
//
// A writer puts its lease before it reads the parent's record and before its first pack, and puts
// it again and again until its backup is committed. A remover that finds a lease which was not
// renewed for too long, by the times that the store gave the objects and never by a host's clock,
// takes it away for good: it puts a revocation, and after that counts the lease as gone. A writer
// that finds itself revoked, or its lease gone, fails, and a backup that is committed after its
// revocation, by more than the store's lag, is void, for everybody. So nothing depends on when a
// writer wakes up, but for those that sleep for weeks: revocations are removed after a month, and a
// writer counts half of that as one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
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

// What tells of the backups of a lineage that are being written, or were begun.
struct LeaseList {
  // By backup. Those of `leases` may be revoked.
  std::map<Uuid, Timestamp> leases;
  // When the backup's lease was revoked. A backup that was committed before is complete all the
  // same.
  std::map<Uuid, Timestamp> revocations;
};

LeaseList list_leases_and_revocations(const Store& store, const Uuid& lineage);

// A writer's own lease. Thread-safe.
class Lease {
 public:
  // Puts the lease and begins to renew it on a thread of its own. Throws what ObjectStore::put
  // throws.
  Lease(const Store& store, const Uuid& lineage, const LeaseRecord& record);
  // Ends the renewal, but leaves the lease as it is: others revoke it in time.
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // Names these backups from now on. Throws as renew().
  void build_on(const std::vector<Uuid>& backups);

  // Looks at all leases of the lineage, of which this is one. Throws kUnavailable if it was
  // revoked; else what the store throws.
  LeaseList look();

  // Puts it again, and looks: what its thread does every now and then.
  void renew();

  // Throws as renew() if a revocation is known already. Does not touch the store, and never waits.
  void check() const;

  // Throws as renew() if the lease is revoked now, or if the backup's record, which has just been
  // put, came so late that a revocation may have come and gone.
  void check_store();

  // Ends the renewal and removes the lease. Of a backup that failed and leaves packs, a revocation
  // stays: the next writer finds them by it.
  enum class Leaves { kNothing, kPacks };
  void release(Leaves leaves);

 private:
  LeaseList look_locked();
  void renew_locked();
  void note_time(Timestamp put);
  void renew_until_stopped(const std::stop_token& stop);

  const Store store_;
  const Uuid lineage_;
  const Uuid backup_;
  const std::string key_;

  std::mutex mutex_;  // held while the lease is put
  std::string text_;
  std::optional<Timestamp> last_;  // when the lease was put last, as far as it was looked at
  std::atomic<bool> revoked_ = false;

  // Of the renewal alone: only a stop wakes it before its time. Here, since making them takes
  // memory, and a thread that finds none ends the process.
  std::mutex wake_mutex_;
  std::condition_variable_any wake_;

  std::jthread renewal_;  // last, since it uses all the others
};

// A lease as others find it.
struct FoundLease {
  Uuid backup;
  Timestamp renewed;
  std::optional<LeaseRecord> record;  // nothing if it can't be understood
};

// The leases of a lineage that are not revoked.
std::vector<FoundLease> list_leases(const Store& store, const Uuid& lineage);

// When the backup's lease was revoked.
std::optional<Timestamp> revocation_of(const Store& store, const Uuid& lineage, const Uuid& backup);

// Whether a backup that was committed then is none, since its lease had been revoked. One moment
// counts as before: how long it lasts is the store's.
bool is_void(const Store& store, Timestamp committed, Timestamp revoked);
// From then on, every backup that this revocation does not make void can be seen: one that a look
// does not find will never be there.
Timestamp end_of_commits(const Store& store, Timestamp revoked);

// Takes the lease away from its writer, which may be at work still: its backup can't be completed
// any more. If it is complete already, only the lease is removed. Throws as ObjectStore::put.
void revoke(const Store& store, const Uuid& lineage, const Uuid& backup);

// Whether a lease that is this old at `now`, a time of the store, counts as dead. One renewal more
// than a lease's duration: the clocks of a store's servers may differ a little.
bool is_dead(const FoundLease& lease, Timestamp now, const StoreTimes& times);

}  // namespace convoy
