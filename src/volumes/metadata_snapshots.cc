#include "volumes/metadata_snapshots.h"

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "thinmeta/torn_hold.h"

namespace convoy {

namespace {

void refuse_half_taken(ThinPool& pool) {
  TornHold found;
  try {
    found = find_torn_hold(pool.metadata_device(), 0);
  } catch (const Error& error) {
    throw Error(ErrorKind::kUnavailable,
                "whether the pool's metadata snapshot can be released can't be told: {}",
                error.message());
  }
  if (found != TornHold::kHalfTaken) return;
  throw Error(ErrorKind::kUnavailable,
              "a power cut or a failed write left the pool's metadata snapshot half taken, and to "
              "release it would destroy the pool: stop what uses its volumes, stop the daemon, "
              "remove the pool's dm devices (dmsetup remove) and start the daemon, which mends it");
}

}  // namespace

void release_left_hold(Catalog& catalog, ThinPool& pool) {
  const std::uint64_t held = pool.status().metadata_snapshot;
  if (held == 0) return;
  refuse_half_taken(pool);
  spdlog::warn("a metadata snapshot was left held and is released");
  catalog.set_metadata_snapshot(held);
  pool.release_metadata_snapshot();
}

MetadataSnapshots::Hold MetadataSnapshots::hold(std::uint64_t transaction_id) {
  std::unique_lock lock(lock_);
  released_.wait(lock, [&] { return holders_ == 0 || held_transaction_ > transaction_id; });
  if (holders_ == 0) {
    // Read before: what is held is at least as new.
    const PoolStatus status = pool_.status();
    if (status.mode == PoolStatus::Mode::kReadOnly) return {*this, Root::kLive};
    require_writable(status);
    held_transaction_ = status.transaction_id;
    if (is_left_held_) release_left_hold(catalog_, pool_);
    is_left_held_ = false;
    try {
      pool_.reserve_metadata_snapshot();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kBusy) throw;
      refuse_half_taken(pool_);
      throw Error(ErrorKind::kBusy,
                  "another program holds the pool's metadata snapshot: try again when it is "
                  "released (dmsetup message POOL 0 release_metadata_snap)");
    }
    try {
      note();
    } catch (...) {
      give_back();
      throw;
    }
  }
  ++holders_;
  return {*this, Root::kHeld};
}

void MetadataSnapshots::require_read_only() const {
  if (pool_.status().mode != PoolStatus::Mode::kReadOnly)
    throw Error(ErrorKind::kUnavailable, "the pool is no longer read-only: try again");
}

void MetadataSnapshots::release() {
  const std::lock_guard lock(lock_);
  if (--holders_ > 0) return;
  give_back();
  released_.notify_all();
}

// For the start after a power cut.
void MetadataSnapshots::note() {
  const std::uint64_t block = pool_.status().metadata_snapshot;
  // The kernel answers with success also if the commit fails that belongs to it.
  if (block == 0) throw Error(ErrorKind::kIo, "the pool did not take a metadata snapshot");
  catalog_.set_metadata_snapshot(block);
}

void MetadataSnapshots::give_back() {
  try {
    pool_.release_metadata_snapshot();
  } catch (const std::exception& error) {
    is_left_held_ = true;  // the next hold tries again
    spdlog::error("the pool's metadata snapshot can't be released: {}", error.what());
  }
}

}  // namespace convoy
