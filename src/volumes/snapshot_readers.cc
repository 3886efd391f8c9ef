#include "volumes/snapshot_readers.h"

#include <algorithm>

#include <spdlog/spdlog.h>

#include "base/error.h"

namespace convoy {
namespace {

// True if the pool's device is the one that the row was made for. Learns its creation time the
// first time.
bool is_same_device(Catalog& catalog, Metadata& metadata, const SnapshotRow& snapshot) {
  const std::optional<DeviceDetails> details = metadata.find_device(snapshot.thin_id);
  if (!details || details->transaction_id != snapshot.transaction_id) return false;
  if (snapshot.creation_time) return details->creation_time == *snapshot.creation_time;
  catalog.set_creation_time(snapshot.uuid, details->creation_time);
  return true;
}

}  // namespace

SnapshotReader::~SnapshotReader() {
  if (owner_ != nullptr) owner_->stop(snapshot_, job_);
}

std::filesystem::path SnapshotReader::device() const {
  return owner_->pool_.device_path(owner_->device_name(snapshot_));
}

std::string SnapshotReaders::device_name(const SnapshotRow& snapshot) const {
  return fmt::format("{}-{}", pool_name_, snapshot.uuid.to_string());
}

std::vector<std::string> SnapshotReaders::jobs_of(const SnapshotRow& snapshot) {
  const std::lock_guard lock(lock_);
  const auto found = jobs_.find(snapshot.uuid);
  return found == jobs_.end() ? std::vector<std::string>() : found->second;
}

void SnapshotReaders::set_jobs(const SnapshotRow& snapshot, std::vector<std::string> jobs) {
  const std::lock_guard lock(lock_);
  if (jobs.empty()) {
    jobs_.erase(snapshot.uuid);
  } else {
    jobs_[snapshot.uuid] = std::move(jobs);
  }
}

SnapshotReader SnapshotReaders::read(const SnapshotRow& snapshot, const std::string& job) {
  const auto lock = snapshot_locks_.lock(snapshot.uuid);
  std::vector<std::string> jobs = jobs_of(snapshot);
  if (jobs.empty()) {
    pool_.deactivate(device_name(snapshot));  // one that could not be taken away before
    pool_.activate(device_name(snapshot), snapshot.uuid.to_string(), {snapshot.thin_id},
                   Sectors::of_bytes(snapshot.size), Access::kReadOnly);
  }
  jobs.push_back(job);
  set_jobs(snapshot, std::move(jobs));
  return {*this, snapshot, job};
}

// By a destructor, so nothing may come out of it, not even that there is no memory.
void SnapshotReaders::stop(const SnapshotRow& snapshot, const std::string& job) noexcept {
  try {
    const auto lock = snapshot_locks_.lock(snapshot.uuid);
    {
      const std::lock_guard guard(lock_);
      const auto found = jobs_.find(snapshot.uuid);
      std::vector<std::string>& jobs = found->second;
      jobs.erase(std::ranges::find(jobs, job));
      if (!jobs.empty()) return;
      jobs_.erase(found);
    }
    pool_.deactivate(device_name(snapshot));
  } catch (const std::exception& error) {
    spdlog::error("the work device of snapshot {} stays until the next start: {}", snapshot.name,
                  error.what());
  }
}

void SnapshotReaders::close(const std::vector<SnapshotRow>& snapshots) {
  for (const SnapshotRow& snapshot : snapshots) {
    const auto lock = snapshot_locks_.lock(snapshot.uuid);
    if (const std::vector<std::string> jobs = jobs_of(snapshot); !jobs.empty()) {
      throw Error(ErrorKind::kBusy, "snapshot '{}' is being read by {}; wait for its end",
                  snapshot.name, jobs.front());
    }
    pool_.deactivate(device_name(snapshot));
  }
}

std::optional<std::vector<ChangedRange>> SnapshotReaders::changed_ranges(
    const std::optional<Uuid>& base, const Uuid& snapshot) {
  const std::optional<SnapshotRow> second = catalog_.snapshot(snapshot);
  if (!second) throw Error(ErrorKind::kNotFound, "there is no snapshot {}", snapshot.to_string());
  const std::optional<SnapshotRow> first = base ? catalog_.snapshot(*base) : std::nullopt;
  if (base && !first) return std::nullopt;

  const auto hold =
      metadata_snapshots_.hold(std::max(second->transaction_id, first ? first->transaction_id : 0));
  Metadata metadata(BlockDevice::open(pool_.metadata_device(), Access::kReadOnly), hold.root());
  if (!is_same_device(catalog_, metadata, *second)) {
    throw Error(ErrorKind::kCorrupt,
                "thin device {} is no longer snapshot '{}': the pool was changed by others",
                second->thin_id, second->name);
  }
  if (first && !is_same_device(catalog_, metadata, *first)) {
    spdlog::warn("thin device {} is no longer snapshot {}", first->thin_id, first->name);
    return std::nullopt;
  }

  ChangedRanges ranges;
  const Sectors block_size = metadata.superblock().data_block_size;
  const auto first_id = first ? std::optional(first->thin_id) : std::nullopt;
  metadata.delta(first_id, second->thin_id, [&](const DeltaRange& range) {
    const std::uint64_t begin = range.begin.bytes(block_size);
    const std::uint64_t end = std::min(range.end.bytes(block_size), second->size);
    if (begin < end) ranges.add({{begin, end}, range.change});
  });
  hold.check();
  return ranges.take();
}

}  // namespace convoy
