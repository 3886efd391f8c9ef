#include "daemon/backups.h"

#include <spdlog/spdlog.h>

#include "backup/backups.h"
#include "backup/delete_backup.h"
#include "backup/destination.h"
#include "backup/restore_backup.h"
#include "base/error.h"
#include "base/name.h"
#include "daemon/views.h"
#include "sys/block_device.h"

namespace convoy {
namespace {

// An open destination.
struct OpenStore {
  std::unique_ptr<ObjectStore> objects;
  Store store;
};

OpenStore open_store(const Destination& destination) {
  auto objects = open_object_store(destination);
  Store store = with_context(destination.to_string(), [&] { return Store::open(*objects); });
  return {std::move(objects), store};
}

BackupList list_destination(const Destination& destination, const std::string& volume_name,
                            const std::optional<Uuid>& known_store) {
  try {
    const OpenStore open = open_store(destination);
    return list_backups(open.store,
                        volume_name.empty() ? std::nullopt : std::optional(volume_name));
  } catch (const Error& error) {
    // Where nothing was ever backed up to, there are no backups.
    if (error.kind() == ErrorKind::kNotFound && !known_store) return {};
    throw;
  }
}

ProgressSink report_to(Job& job) {
  return
      [&job](const Progress& progress) { job.report({progress.bytes_done, progress.bytes_total}); };
}

// The mapped ranges are read; all between them is zero.
std::vector<SourceRange> whole_device(const std::vector<ChangedRange>& mapped, std::uint64_t size) {
  std::vector<SourceRange> ranges;
  std::uint64_t end = 0;
  for (const ChangedRange& range : mapped) {
    if (range.range.begin > end) ranges.push_back({{end, range.range.begin}, SourceKind::kZero});
    ranges.push_back({range.range, SourceKind::kRead});
    end = range.range.end;
  }
  if (end < size) ranges.push_back({{end, size}, SourceKind::kZero});
  return ranges;
}

std::vector<SourceRange> changed_parts(const std::vector<ChangedRange>& changes) {
  std::vector<SourceRange> ranges;
  ranges.reserve(changes.size());
  for (const ChangedRange& change : changes) {
    ranges.push_back(
        {change.range, change.change == Change::kRemoved ? SourceKind::kZero : SourceKind::kRead});
  }
  return ranges;
}

}  // namespace

std::optional<Backups::Base> Backups::incremental_base(const Store& store,
                                                       const SnapshotRow& snapshot,
                                                       const VolumeRow& volume) {
  while (const auto known = catalog_.newest_backup(store.uuid(), volume.uuid)) {
    const auto changes = volumes_.changed_ranges(known->snapshot, snapshot.uuid);
    if (changes) return Base{known->backup, changed_parts(*changes), true};
    // The snapshot's thin device was replaced by others: it is of no use any more.
    catalog_.forget_backup(known->backup);
  }
  return std::nullopt;
}

Backups::Base Backups::choose_base(const Store& store, const SnapshotRow& snapshot,
                                   const VolumeRow& volume) {
  if (auto base = incremental_base(store, snapshot, volume)) return std::move(*base);
  // What is read is compared with the newest backup all the same: what it holds is not stored
  // again.
  const std::vector<Uuid> backups = backups_of(store, volume.lineage);
  return {backups.empty() ? std::nullopt : std::optional(backups.back()),
          whole_device(volumes_.changed_ranges(std::nullopt, snapshot.uuid).value(), snapshot.size),
          false};
}

Backups::Created Backups::create(const std::string& snapshot_reference,
                                 const std::string& destination_url, Job& job) {
  const Destination destination = Destination::parse(destination_url);
  const auto objects = open_object_store(destination);
  const std::string url = destination.to_string();
  const Store store =
      with_context(url, [&] { return Store::open_or_create(*objects, catalog_.store_at(url)); });
  catalog_.remember_store(url, store.uuid());

  const SnapshotReader reader = volumes_.read_snapshot(snapshot_reference, job.description());
  const VolumeRow volume = volumes_.inspect(reader.snapshot().volume.to_string()).volume;
  const BlockDevice device = BlockDevice::open(reader.device(), Access::kReadOnly);
  // The backup that this one is to be built on may be deleted, by any host, until it is leased.
  // More than a few times in a row is something else.
  for (int tries_left = 4;; --tries_left) {
    const Base base = choose_base(store, reader.snapshot(), volume);
    try {
      Created created = create_on(base, store, reader.snapshot(), device.fd(), volume, job);
      created.url = BackupUrl{destination, created.backup, volume.lineage}.to_string();
      return created;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound || !base.parent || tries_left == 0) throw;
      spdlog::info("the backup is planned anew: {}", error.message());
      catalog_.forget_backup(*base.parent);
    }
  }
}

Backups::Created Backups::create_on(const Base& base, const Store& store,
                                    const SnapshotRow& snapshot, int device_fd,
                                    const VolumeRow& volume, Job& job) {
  BackupPlan plan;
  plan.source = {.lineage = volume.lineage,
                 .driver = kDriverName,
                 .volume = {volume.uuid, volume.name, volume.created, volume.filesystem},
                 .snapshot = {snapshot.uuid, snapshot.name, snapshot.created},
                 .size = snapshot.size};
  plan.device_fd = device_fd;
  plan.parent = base.parent;
  plan.ranges = base.ranges;
  const BackupRecord record = create_backup(store, plan, report_to(job), job.stop_token());
  catalog_.add_backup(record.info.uuid, store.uuid(), snapshot.uuid);
  return {"", record.info.uuid, base.incremental, record.info.statistics};
}

VolumeView Backups::restore(const NewVolume& request, const std::string& backup_url, Job& job) {
  const BackupUrl url = BackupUrl::parse(backup_url);
  const OpenStore open = open_store(url.destination);
  const BackupRecord record = read_backup(open.store, url.lineage, url.backup);
  {
    const std::lock_guard lock(lock_);
    restoring_.insert(url.backup);
  }
  const auto done = [this, &url](void*) {
    const std::lock_guard lock(lock_);
    restoring_.erase(restoring_.find(url.backup));
  };
  const std::unique_ptr<Backups, decltype(done)> restoring(this, done);

  const BackupSource& source = record.info.source;
  Volumes::Construction volume = volumes_.begin_restore(
      request, {url.backup, source.lineage, source.size, source.volume.filesystem});
  const BlockDevice device = BlockDevice::open(volume.device(), Access::kReadWrite);
  restore_backup(open.store, record, device.fd(), report_to(job), job.stop_token());
  return volume.commit();
}

Backups::List Backups::list(const std::string& destination_url, const std::string& volume_name) {
  const Destination destination = Destination::parse(destination_url);
  BackupList found =
      list_destination(destination, volume_name, catalog_.store_at(destination.to_string()));
  List list;
  list.damaged = std::move(found.damaged);
  for (BackupInfo& info : found.backups) {
    std::string url = BackupUrl{destination, info.uuid, info.source.lineage}.to_string();
    list.backups.push_back({std::move(url), std::move(info)});
  }
  return list;
}

Backups::Listed Backups::inspect(const std::string& backup_url) {
  const BackupUrl url = BackupUrl::parse(backup_url);
  const OpenStore open = open_store(url.destination);
  return {url.to_string(), read_backup(open.store, url.lineage, url.backup).info};
}

void Backups::remove(const std::string& backup_url, Job& job) {
  const BackupUrl url = BackupUrl::parse(backup_url);
  {
    const std::lock_guard lock(lock_);
    if (restoring_.contains(url.backup)) {
      throw Error(ErrorKind::kBusy,
                  "a volume is being restored from this backup; wait for its end");
    }
  }
  const OpenStore open = open_store(url.destination);
  delete_backup(open.store, url.lineage, url.backup, job.stop_token());
  catalog_.forget_backup(url.backup);
}

}  // namespace convoy
