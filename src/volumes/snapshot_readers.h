// Who reads which snapshot, and what has changed between two of them.
#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"
#include "thinmeta/metadata.h"
#include "volumes/changed_ranges.h"
#include "volumes/metadata_snapshots.h"
#include "volumes/object_locks.h"

namespace convoy {

class SnapshotReaders;

// While one of these lives, its snapshot is a read-only block device.
class SnapshotReader {
 public:
  SnapshotReader(SnapshotReaders& owner, SnapshotRow snapshot, std::string job)
      : owner_(&owner), snapshot_(std::move(snapshot)), job_(std::move(job)) {}
  SnapshotReader(SnapshotReader&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)),
        snapshot_(std::move(other.snapshot_)),
        job_(std::move(other.job_)) {}
  SnapshotReader& operator=(SnapshotReader&&) = delete;
  SnapshotReader(const SnapshotReader&) = delete;
  SnapshotReader& operator=(const SnapshotReader&) = delete;
  ~SnapshotReader();

  std::filesystem::path device() const;
  const SnapshotRow& snapshot() const { return snapshot_; }

 private:
  SnapshotReaders* owner_;
  SnapshotRow snapshot_;
  std::string job_;
};

// Thread-safe.
class SnapshotReaders {
 public:
  SnapshotReaders(Catalog& catalog, ThinPool& pool, std::string pool_name)
      : catalog_(catalog),
        pool_(pool),
        pool_name_(std::move(pool_name)),
        metadata_snapshots_(catalog, pool) {}

  // The caller holds the lock of the snapshot's volume, so that nobody deletes it in this moment.
  SnapshotReader read(const SnapshotRow& snapshot, const std::string& job);

  // Before they are deleted: takes away work devices that could not be taken away before. Throws
  // kBusy, naming the job, if one of them is being read, or if its work device is open elsewhere.
  void close(const std::vector<SnapshotRow>& snapshots);

  // The ranges of `snapshot` that differ from `base`, in ascending order, clipped to its size;
  // without a base, all that is mapped. At most kMaxChangedRanges: where there would be more, they
  // hold what is between them, too. `snapshot` must not be deleted meanwhile. Read from the
  // pool's metadata under its metadata snapshot, which is held no longer than that takes. Nothing
  // if there is a `base`, but it is gone or its thin id is not what it was. Throws kCorrupt if the
  // metadata are damaged or `snapshot`'s thin id is not what it was.
  std::optional<std::vector<ChangedRange>> changed_ranges(const std::optional<Uuid>& base,
                                                          const Uuid& snapshot);

 private:
  friend class SnapshotReader;
  std::string device_name(const SnapshotRow& snapshot) const;
  std::vector<std::string> jobs_of(const SnapshotRow& snapshot);
  void set_jobs(const SnapshotRow& snapshot, std::vector<std::string> jobs);
  void stop(const SnapshotRow& snapshot, const std::string& job) noexcept;

  Catalog& catalog_;
  ThinPool& pool_;
  std::string pool_name_;
  MetadataSnapshots metadata_snapshots_;

  // Taking a device away may have to be tried for seconds; only readers of that snapshot wait.
  ObjectLocks snapshot_locks_;
  std::mutex lock_;
  std::map<Uuid, std::vector<std::string>> jobs_;  // of each snapshot that is being read
};

}  // namespace convoy
