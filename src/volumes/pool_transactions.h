// Every change of the pool's devices, each as one step that a crash leaves done or undone, never
// half.
//
// The catalog commits the intent (what, and that the pool is at transaction T); the pool gets its
// message; the pool commits T+1 together with it; the catalog commits the result. After a crash the
// pool's transaction id tells which side of the step it is on.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>

#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"

namespace convoy {

// Thread-safe; one step at a time. A step is a message to the pool and three commits; the message
// that snapshots an active volume waits for what its file system has to write.
class PoolTransactions {
 public:
  PoolTransactions(Catalog& catalog, ThinPool& pool) : catalog_(catalog), pool_(pool) {}

  // Make an empty thin device, with its row in state kCreating, or one that is a copy of `origin`
  // at this moment, with its row in state kReady. Throw kAlreadyExists if the name is taken. After
  // a failure there is neither row nor device, unless pool or catalog can't be talked to just then:
  // in that case the next step, or the next start, undoes or finishes it.
  VolumeRow create(VolumeRow volume);
  SnapshotRow create(SnapshotRow snapshot, const VolumeRow& origin);
  // A copy that can be written to, with its row in state kCreating.
  VolumeRow create(VolumeRow copy, const VolumeRow& origin);

  // Deletes an inactive device, whose row is in state kDeleting, and the row. Throws kBusy, and
  // leaves both, if it is active. That the pool doesn't have it any more is fine.
  void remove(const DeviceRow& device);

  // Runs `action` while no step is under way. False, without having run it, if one is for longer
  // than `patience`: the kernel may be deleting a large device.
  bool between_steps(std::chrono::milliseconds patience, const std::function<void()>& action);

  // Finishes or undoes the step that was under way when the process, or the host, went down. Throws
  // kCorrupt if the pool is at a transaction that the catalog can't explain. As all others, throws
  // kUnavailable if the pool is read-only or has failed.
  void recover();

 private:
  // Runs a step that makes the device of this row by `message`.
  void make(const DeviceRow& device, const std::function<Effect()>& message);
  // Tells the pool by `message`, then moves it to the next transaction.
  void step(const std::function<void()>& message);
  void recover_locked();

  std::timed_mutex lock_;
  Catalog& catalog_;
  ThinPool& pool_;
};

}  // namespace convoy
