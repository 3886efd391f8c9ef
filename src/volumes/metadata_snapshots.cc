#include "volumes/metadata_snapshots.h"

#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {

MetadataSnapshots::Hold MetadataSnapshots::hold(std::uint64_t transaction_id) {
  std::unique_lock lock(lock_);
  released_.wait(lock, [&] { return holders_ == 0 || held_transaction_ > transaction_id; });
  if (holders_ == 0) {
    // Read before: what is held is at least as new.
    const PoolStatus status = pool_.status();
    require_writable(status);
    held_transaction_ = status.transaction_id;
    try {
      pool_.reserve_metadata_snapshot();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kBusy) throw;
      pool_.release_metadata_snapshot();  // ours, which could not be released before
      pool_.reserve_metadata_snapshot();
    }
  }
  ++holders_;
  return Hold(*this);
}

void MetadataSnapshots::release() {
  const std::lock_guard lock(lock_);
  if (--holders_ > 0) return;
  try {
    pool_.release_metadata_snapshot();
  } catch (const Error& error) {
    // The next hold tries again.
    spdlog::error("the pool's metadata snapshot can't be released: {}", error.message());
  }
  released_.notify_all();
}

}  // namespace convoy
