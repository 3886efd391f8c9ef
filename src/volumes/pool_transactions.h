// Every change of the pool's devices, each as one step that a crash leaves done or undone, never
// half.
//
// The catalog commits the intent (what, and that the pool is at transaction T); the pool gets its
// message; the pool commits T+1 together with it; the catalog commits the result. After a crash the
// pool's transaction id tells which side of the step it is on.
#pragma once

#include <mutex>

#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"

namespace convoy {

// Thread-safe; one step at a time. Steps are short: a message to the pool and three commits.
class PoolTransactions {
 public:
  PoolTransactions(Catalog& catalog, ThinPool& pool) : catalog_(catalog), pool_(pool) {}

  // Make an empty thin device, or one that is a copy of `origin` at this moment, and its row, in
  // state kCreating. Throw kAlreadyExists if the name is taken; then, and after any failure, there
  // is neither row nor device, unless the pool can't be talked to: then the next step, or the next
  // start, undoes it.
  VolumeRow create(VolumeRow volume);
  SnapshotRow create(SnapshotRow snapshot, const VolumeRow& origin);

  // Deletes an inactive device, whose row is in state kDeleting, and the row.
  void remove(const DeviceRow& device);

  // Finishes or undoes the step that was under way when the process, or the host, went down. Throws
  // kCorrupt if the pool is at a transaction that the catalog can't explain.
  void recover();

 private:
  // Tells the pool by `message`, then moves it to the next transaction.
  template <typename Message>
  void step(Message&& message);
  void recover_locked();

  std::mutex lock_;
  Catalog& catalog_;
  ThinPool& pool_;
};

}  // namespace convoy
