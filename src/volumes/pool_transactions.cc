#include "volumes/pool_transactions.h"

#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {

template <typename Message>
void PoolTransactions::step(Message&& message) {
  const std::uint64_t transaction = catalog_.intent()->transaction_id;
  try {
    std::forward<Message>(message)();
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
  step([&] { pool_.create_thin({volume.thin_id}); });
  return volume;
}

SnapshotRow PoolTransactions::create(SnapshotRow snapshot, const VolumeRow& origin) {
  const std::lock_guard lock(lock_);
  recover_locked();
  snapshot = catalog_.begin_create(std::move(snapshot));
  step([&] { pool_.create_snapshot({snapshot.thin_id}, {origin.thin_id}, origin.name); });
  return snapshot;
}

void PoolTransactions::remove(const DeviceRow& device) {
  const std::lock_guard lock(lock_);
  recover_locked();
  catalog_.begin_delete(device.uuid);
  step([&] { pool_.delete_thin({device.thin_id}); });
}

void PoolTransactions::recover() {
  const std::lock_guard lock(lock_);
  recover_locked();
}

void PoolTransactions::recover_locked() {
  const std::uint64_t known = catalog_.pool()->transaction_id;
  const std::uint64_t actual = pool_.status().transaction_id;
  const std::optional<Intent> intent = catalog_.intent();
  if (!intent && actual == known) return;
  if (intent && actual == intent->transaction_id + 1) return catalog_.finish_intent();
  if (!intent || actual != intent->transaction_id) {
    throw Error(ErrorKind::kCorrupt,
                "the pool is at transaction {} and the catalog at {}: the pool was changed without "
                "this catalog, or the "
                "catalog is an old copy; put the two that belong together in place",
                actual, known);
  }
  // Not a step further: a create is undone, a delete repeated. Either way the thin device goes.
  pool_.delete_thin({intent->thin_id});
  if (intent->action == Intent::Action::kCreate) return catalog_.abandon_intent();
  pool_.set_transaction_id(actual, actual + 1);
  catalog_.finish_intent();
}

}  // namespace convoy
