#include "volumes/pool_transactions.h"

#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {

void PoolTransactions::make(const DeviceRow& device, const std::function<Effect()>& message) {
  step([&] {
    if (message() == Effect::kChanged) return;
    // Not ours, so it must not be undone either. The next create takes another id.
    catalog_.abandon_intent();
    throw Error(ErrorKind::kAlreadyExists,
                "the pool has a thin device {} that the catalog doesn't know; try again",
                device.thin_id);
  });
}

void PoolTransactions::step(const std::function<void()>& message) {
  const std::uint64_t transaction = catalog_.intent()->transaction_id;
  try {
    message();
    pool_.set_transaction_id(transaction, transaction + 1);
  } catch (const Error& error) {
    try {
      recover_locked();
    } catch (const Error& failure) {
      spdlog::error("the pool's step that failed ({}) can't be undone now: {}", error.message(),
                    failure.message());
    }
    throw;
  }
  catalog_.finish_intent();
}

VolumeRow PoolTransactions::create(VolumeRow volume) {
  const std::lock_guard lock(lock_);
  recover_locked();
  volume = catalog_.begin_create(std::move(volume));
  make(volume, [&] { return pool_.create_thin({volume.thin_id}); });
  return volume;
}

SnapshotRow PoolTransactions::create(SnapshotRow snapshot, const VolumeRow& origin) {
  const std::lock_guard lock(lock_);
  recover_locked();
  snapshot = catalog_.begin_create(std::move(snapshot));
  make(snapshot,
       [&] { return pool_.create_snapshot({snapshot.thin_id}, {origin.thin_id}, origin.name); });
  return snapshot;
}

VolumeRow PoolTransactions::create(VolumeRow copy, const VolumeRow& origin) {
  const std::lock_guard lock(lock_);
  recover_locked();
  copy = catalog_.begin_create(std::move(copy));
  make(copy, [&] { return pool_.create_snapshot({copy.thin_id}, {origin.thin_id}, origin.name); });
  return copy;
}

void PoolTransactions::remove(const DeviceRow& device) {
  const std::lock_guard lock(lock_);
  recover_locked();
  catalog_.begin_delete(device.uuid);
  step([&] { pool_.delete_thin({device.thin_id}); });
}

bool PoolTransactions::between_steps(std::chrono::milliseconds patience,
                                     const std::function<void()>& action) {
  // By this clock, though it can be set: ThreadSanitizer does not see locks that were waited for by
  // the steady one (pthread_mutex_clocklock).
  const std::unique_lock lock(lock_, std::chrono::system_clock::now() + patience);
  if (lock) action();
  return lock.owns_lock();
}

void PoolTransactions::recover() {
  const std::lock_guard lock(lock_);
  recover_locked();
}

void PoolTransactions::recover_locked() {
  const PoolStatus status = pool_.status();
  require_writable(status);
  const std::uint64_t known = catalog_.pool()->transaction_id;
  const std::optional<Intent> intent = catalog_.intent();
  if (!intent && status.transaction_id == known) return;
  if (intent && status.transaction_id == intent->transaction_id + 1) {
    return catalog_.finish_intent();
  }
  if (!intent || status.transaction_id != intent->transaction_id) {
    throw Error(ErrorKind::kCorrupt,
                "the pool is at transaction {} and the catalog at {}: the pool was changed without "
                "this catalog, or the catalog is an old copy; put the two that belong together in "
                "place",
                status.transaction_id, known);
  }
  // A create is undone. A delete is left to whoever finds its row in state kDeleting: whether or
  // not the thin device is gone by now, to delete it again is fine, and if it can't be deleted it
  // must not keep others waiting.
  if (intent->action == Intent::Action::kCreate) pool_.delete_thin({intent->thin_id});
  catalog_.abandon_intent();
}

}  // namespace convoy
