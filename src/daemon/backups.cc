#include "daemon/backups.h"

#include <algorithm>
#include <iterator>
#include <ranges>
#include <utility>

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "backup/collect_garbage.h"
#include "backup/destination.h"
#include "backup/lease.h"
#include "backup/restore_backup.h"
#include "base/error.h"
#include "base/name.h"
#include "base/size.h"
#include "daemon/views.h"
#include "sys/block_device.h"

namespace convoy {
namespace {

void check_is_ours(const BackupUrl& url, std::string_view instead) {
  if (!url.convoy) return;
  throw Error(ErrorKind::kUnsupported,
              "this backup was made by Rancher Convoy, and can be listed and restored only: {}",
              instead);
}

ProgressSink report_to(Job& job) {
  return
      [&job](const Progress& progress) { job.report({progress.bytes_done, progress.bytes_total}); };
}

// The progress of a job that does one thing after the other.
class SumOfProgress {
 public:
  // `total` is that of all parts, if it is known; it grows if they turn out to be more.
  explicit SumOfProgress(Job& job, std::uint64_t total = 0) : job_(job), total_(total) {}

  // For the next part.
  ProgressSink next() {
    done_before_ += std::exchange(part_, 0);
    return [this](const Progress& progress) {
      part_ = progress.bytes_total;
      job_.report({done_before_ + progress.bytes_done, std::max(total_, done_before_ + part_)});
    };
  }

 private:
  Job& job_;
  const std::uint64_t total_;
  std::uint64_t done_before_ = 0;
  std::uint64_t part_ = 0;
};

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

// A backup's JSON, if it is there and can be understood.
std::optional<BackupRecord> read_sound(const Store& store, const Uuid& lineage,
                                       const Uuid& backup) {
  try {
    return read_backup(store, lineage, backup);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return std::nullopt;
    if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
    spdlog::warn("nothing is built on a damaged backup: {}", error.message());
    return std::nullopt;
  }
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

Backups::OpenStore Backups::open_store(const Destination& destination, const StoreAddress& address,
                                       std::stop_token stop) {
  auto objects = destinations_.open(destination, address.s3_endpoint, std::move(stop)).objects;
  Store store = with_context(destination.to_string(), [&] { return Store::open(*objects); });
  return {std::move(objects), store};
}

BackupList Backups::list_ours(const Destinations::Opened& opened, const Destination& destination,
                              const std::optional<std::string>& volume_name) {
  try {
    const Store store =
        with_context(destination.to_string(), [&] { return Store::open(*opened.objects); });
    return list_backups(store, volume_name);
  } catch (const Error& error) {
    // Where nothing was ever backed up to, there are no backups.
    if (error.kind() == ErrorKind::kNotFound && !catalog_.store_at(opened.known_as)) return {};
    throw;
  }
}

std::optional<Backups::Base> Backups::incremental_base(const Store& store,
                                                       const SnapshotRow& snapshot,
                                                       const VolumeRow& volume, LookFirst look) {
  while (const auto known = catalog_.newest_backup(store.uuid(), volume.uuid)) {
    const auto changes =
        look == LookFirst::kYes && !read_sound(store, volume.lineage, known->backup)
            ? std::nullopt
            : volumes_.changed_ranges(known->snapshot, snapshot.uuid);
    if (changes) return Base{known->backup, changed_parts(*changes), true};
    // It is gone, or the snapshot's thin device was replaced by others: it is of no use any more.
    catalog_.forget_backup(known->backup);
  }
  return std::nullopt;
}

Backups::Base Backups::choose_base(const Store& store, const SnapshotRow& snapshot,
                                   const VolumeRow& volume, LookFirst look) {
  if (auto base = incremental_base(store, snapshot, volume, look)) return std::move(*base);
  // What is read is compared with a backup all the same: what it holds is not stored again.
  return {parent_without_snapshot(store, volume),
          whole_device(volumes_.changed_ranges(std::nullopt, snapshot.uuid).value(), snapshot.size),
          false};
}

// The newest of the volume's own, or the one that it was restored from: on other hosts, other
// volumes may continue the same lineage. Else the newest.
std::optional<Uuid> Backups::parent_without_snapshot(const Store& store, const VolumeRow& volume) {
  constexpr std::size_t kLookedAt = 32;
  std::optional<Uuid> newest;
  std::size_t looked_at = 0;
  for (const Uuid& backup : std::views::reverse(backups_of(store, volume.lineage))) {
    const auto record = read_sound(store, volume.lineage, backup);
    if (!record) continue;
    if (!newest) newest = backup;
    if (backup == volume.backup || record->info.source.volume.uuid == volume.uuid) return backup;
    if (++looked_at == kLookedAt) break;
  }
  return newest;
}

// Where it is to be read, it stays so: ranges that are close to each other were joined, and what is
// between them may not be mapped.
void Backups::add_unmapped(std::vector<SourceRange>& ranges, const SnapshotRow& snapshot) {
  const auto is_zero = [](const SourceRange& range) { return range.kind == SourceKind::kZero; };
  std::erase_if(ranges, is_zero);
  std::vector<SourceRange> all =
      whole_device(volumes_.changed_ranges(std::nullopt, snapshot.uuid).value(), snapshot.size);
  std::erase_if(all, std::not_fn(is_zero));
  std::vector<SourceRange> between;
  auto next = ranges.begin();
  for (const auto& [unmapped, kind] : all) {
    while (next != ranges.end() && next->bytes.end <= unmapped.begin) ++next;
    std::uint64_t begin = unmapped.begin;
    for (auto read = next; read != ranges.end() && read->bytes.begin < unmapped.end; ++read) {
      if (begin < read->bytes.begin)
        between.push_back({{begin, read->bytes.begin}, SourceKind::kZero});
      begin = read->bytes.end;
    }
    if (begin < unmapped.end) between.push_back({{begin, unmapped.end}, SourceKind::kZero});
  }
  std::ranges::move(between, std::back_inserter(ranges));
  std::ranges::sort(ranges, {}, [](const SourceRange& range) { return range.bytes.begin; });
}

Backups::Created Backups::create(const std::string& snapshot_reference, const StoreAddress& address,
                                 const Compression& compression, Job& job) {
  const Destination destination = Destination::parse(address.url);
  const auto [objects, known_as] =
      destinations_.open(destination, address.s3_endpoint, job.stop_token());
  const auto expected = catalog_.store_at(known_as);
  const Store store = with_context(destination.to_string(),
                                   [&] { return Store::open_or_create(*objects, expected); });
  catalog_.remember_store(known_as, store.uuid());

  const SnapshotReader reader = volumes_.read_snapshot(snapshot_reference, job.description());
  const SnapshotRow& snapshot = reader.snapshot();
  const VolumeRow volume = volumes_.inspect(snapshot.volume.to_string()).volume;
  const BlockDevice device = BlockDevice::open(reader.device(), Access::kReadOnly);
  BackupPlan plan;
  plan.source = {.lineage = volume.lineage,
                 .driver = kDriverName,
                 .volume = {volume.uuid, volume.name, volume.created, volume.filesystem},
                 .snapshot = {snapshot.uuid, snapshot.name, snapshot.created},
                 .size = snapshot.size};
  plan.device_fd = device.fd();
  plan.compression = compression;
  // The backup that this one is to be built on may be deleted, by any host, until it is leased.
  // More than a few times in a row is something else.
  LookFirst look = LookFirst::kNo;
  for (int tries_left = 4;; --tries_left) {
    Base base = choose_base(store, snapshot, volume, look);
    plan.repair = base.parent && plan.repair && base.parent == plan.parent;
    plan.parent = base.parent;
    if (plan.repair) add_unmapped(base.ranges, snapshot);
    plan.ranges = std::move(base.ranges);
    try {
      const BackupRecord record = create_backup(store, plan, report_to(job), job.stop_token());
      catalog_.add_backup(record.info.uuid, store.uuid(), snapshot.uuid);
      const BackupStatistics& statistics = record.info.statistics;
      std::string url = BackupUrl{destination, record.info.uuid, volume.lineage}.to_string();
      spdlog::info("snapshot {} of volume {} backed up as {}: {} read, {} stored", snapshot.name,
                   volume.name, url, format_size(statistics.bytes_read),
                   format_size(statistics.bytes_stored));
      return {.url = std::move(url),
              .incremental = base.incremental,
              .statistics = statistics,
              .bytes_reused =
                  std::min(statistics.chunks_reused * record.chunk_size, statistics.bytes_read)};
    } catch (const Error& error) {
      if (!base.parent || tries_left == 0) throw;
      if (error.kind() == ErrorKind::kNotFound) {
        spdlog::info("the backup is planned anew: {}", error.message());
        catalog_.forget_backup(*base.parent);
        look = LookFirst::kYes;
      } else if (error.kind() == ErrorKind::kCorrupt && !plan.repair) {
        spdlog::warn("the backup to build on is damaged, what is lost is read again: {}",
                     error.message());
        plan.repair = true;
      } else {
        throw;
      }
    }
  }
}

class Backups::Mark {
 public:
  // Throws kBusy, with this sentence, if the backup is among `others`.
  Mark(std::mutex& mutex, std::multiset<Uuid>& marked, const std::multiset<Uuid>& others,
       const Uuid& backup, const char* sentence)
      : mutex_(mutex), marked_(marked), backup_(backup) {
    const std::lock_guard lock(mutex_);
    if (others.contains(backup_)) throw Error(ErrorKind::kBusy, "{}", sentence);
    marked_.insert(backup_);
  }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark() {
    const std::lock_guard lock(mutex_);
    marked_.erase(marked_.find(backup_));
  }

 private:
  std::mutex& mutex_;
  std::multiset<Uuid>& marked_;
  const Uuid backup_;
};

Backups::Mark Backups::being_restored(const Uuid& backup) {
  return {lock_, restoring_, removing_, backup, "the backup is being deleted"};
}

Backups::Mark Backups::being_removed(const Uuid& backup) {
  return {lock_, removing_, restoring_, backup,
          "a volume is being restored from this backup; wait for its end"};
}

Backups::Restored Backups::restore(const NewVolume& request, const StoreAddress& address,
                                   OnDamage on_damage, Job& job) {
  const BackupUrl url = BackupUrl::parse(address.url);
  if (url.convoy) {
    const auto objects =
        destinations_.open(url.destination, address.s3_endpoint, job.stop_token()).objects;
    const ConvoyBackup backup = read_convoy_backup(*objects, *url.convoy);
    const BackupSource& source = backup.info.source;
    // The volume begins a lineage of its own.
    return fill_new_volume(request,
                           {url.backup, Uuid::random(), source.size, source.volume.filesystem},
                           on_damage, [&](int device_fd, const DamageSink& damaged) {
                             restore_convoy_backup(*objects, backup, device_fd, report_to(job),
                                                   job.stop_token(), damaged);
                           });
  }
  const Mark mark = being_restored(url.backup);
  const OpenStore open = open_store(url.destination, address, job.stop_token());
  const BackupRecord record = read_backup(open.store, url.lineage, url.backup);
  const BackupSource& source = record.info.source;
  return fill_new_volume(
      request, {url.backup, source.lineage, source.size, source.volume.filesystem}, on_damage,
      [&](int device_fd, const DamageSink& damaged) {
        restore_backup(open.store, record, device_fd, report_to(job), job.stop_token(), damaged);
      });
}

Backups::Restored Backups::fill_new_volume(const NewVolume& request, const BackedUpVolume& source,
                                           OnDamage on_damage, const WriteBackup& write) {
  Volumes::Construction volume = volumes_.begin_restore(request, source);
  const BlockDevice device = BlockDevice::open(volume.device(), Access::kReadWrite);
  DamageList lost;
  DamageSink damaged;
  if (on_damage == OnDamage::kAllow) damaged = [&](Damage damage) { lost.add(std::move(damage)); };
  write(device.fd(), damaged);
  return {.volume = volume.commit(), .lost = lost.take()};
}

VolumeView Backups::restore_into(const std::string& volume, const StoreAddress& address, Job& job) {
  const BackupUrl url = BackupUrl::parse(address.url);
  check_is_ours(url, "restore it to a volume of its own, by convoy create --backup");
  const Mark mark = being_restored(url.backup);
  const OpenStore open = open_store(url.destination, address, job.stop_token());
  const BackupRecord record = read_backup(open.store, url.lineage, url.backup);
  const BackupSource& source = record.info.source;
  Volumes::Replacement replacement = volumes_.begin_replacement(
      volume, {url.backup, source.lineage, source.size, source.volume.filesystem},
      job.description());
  {
    const BlockDevice device = BlockDevice::open(replacement.device(), Access::kReadWrite);
    restore_difference(open.store, record, device.fd(), volumes_.pool().block_size.bytes(),
                       report_to(job), job.stop_token());
  }
  return replacement.commit();
}

Backups::Verified Backups::verify(const StoreAddress& address, VerifyDepth depth, Job& job) {
  const bool is_backup = address.url.find('?') != std::string::npos;
  const std::optional<BackupUrl> one =
      is_backup ? std::optional(BackupUrl::parse(address.url)) : std::nullopt;
  if (one) check_is_ours(*one, "a restore verifies it");
  const Destination destination = one ? one->destination : Destination::parse(address.url);
  const OpenStore open = open_store(destination, address, job.stop_token());

  Verified verified;
  const auto url_of = [&](const Uuid& lineage, const Uuid& backup) {
    return BackupUrl{destination, backup, lineage}.to_string();
  };
  std::uint64_t total = 0;
  if (!one) {
    for (const BackupInfo& info : list_backups(open.store, std::nullopt).backups)
      total += info.source.size;
  }
  SumOfProgress progress(job, total);
  const auto verify_one = [&](Verifier& verifier, const Uuid& lineage, const Uuid& backup) {
    try {
      const BackupRecord record = read_backup(open.store, lineage, backup);
      ++verified.backups;
      for (Damage& damage : verifier.verify(record, progress.next(), job.stop_token())) {
        std::string reason = damage.reason;
        verified.damaged.push_back({url_of(lineage, backup), std::move(damage), std::move(reason)});
      }
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound && !one) return;  // deleted since it was listed
      const bool is_unknown = error.kind() == ErrorKind::kUnsupported && !one;  // to this version
      if (error.kind() != ErrorKind::kCorrupt && !is_unknown) throw;
      verified.damaged.push_back({url_of(lineage, backup), std::nullopt, error.message()});
    }
  };
  for (const Uuid& lineage : one ? std::vector{one->lineage} : lineages_of(open.store)) {
    Verifier verifier(open.store, lineage, depth);
    for (const Uuid& backup : one ? std::vector{one->backup} : backups_of(open.store, lineage)) {
      verify_one(verifier, lineage, backup);
      try {
        verifier.note_damage();      // at once: a verification of all may be cancelled after hours
        verified.not_noted.clear();  // what could not be noted before was noted, too
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kCancelled) throw;
        verified.not_noted = error.message();  // and what was found is told all the same
      }
    }
  }
  return verified;
}

Backups::Collected Backups::collect_garbage(const StoreAddress& address, CollectionMode mode,
                                            Job& job) {
  const OpenStore open = open_store(Destination::parse(address.url), address, job.stop_token());
  Collected collected;
  SumOfProgress progress(job);
  for (const Uuid& lineage : lineages_of(open.store)) {
    try {
      Collection collection =
          convoy::collect_garbage(open.store, lineage, mode, progress.next(), job.stop_token());
      for (const CollectedPack& pack : collection.packs) collected.packs.push_back({lineage, pack});
      if (!collection.not_rewritten.empty())
        collected.notes.push_back(fmt::format("no packs of the volume {} were rewritten: {}",
                                              lineage.to_string(), collection.not_rewritten));
    } catch (const Error& error) {
      // One volume's trouble is not that of the others.
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
      collected.failures.push_back(fmt::format("nothing of the volume {} was freed: {}",
                                               lineage.to_string(), error.message()));
    }
  }
  return collected;
}

std::vector<Backups::Unlocked> Backups::unlock(const StoreAddress& address) {
  const Destination destination = Destination::parse(address.url);
  const OpenStore open = open_store(destination, address, stopping_.get_token());
  std::vector<Unlocked> unlocked;
  for (const Uuid& lineage : lineages_of(open.store)) {
    for (const FoundLease& lease : list_leases(open.store, lineage)) {
      revoke(open.store, lineage, lease.backup);
      unlocked.push_back(
          {BackupUrl{destination, lease.backup, lineage}.to_string(), lease.renewed});
    }
  }
  return unlocked;
}

Backups::List Backups::list(const StoreAddress& address, const std::string& volume_name) {
  const Destination destination = Destination::parse(address.url);
  const auto name = volume_name.empty() ? std::nullopt : std::optional(volume_name);
  const Destinations::Opened opened =
      destinations_.open(destination, address.s3_endpoint, stopping_.get_token());
  BackupList found = list_ours(opened, destination, name);
  List list;
  list.damaged = std::move(found.damaged);
  for (BackupInfo& info : found.backups) {
    std::string url = BackupUrl{destination, info.uuid, info.source.lineage}.to_string();
    list.backups.push_back({std::move(url), std::move(info)});
  }
  ConvoyBackupList convoys = list_convoy_backups(*opened.objects, name);
  std::ranges::move(convoys.damaged, std::back_inserter(list.damaged));
  for (ConvoyBackup& backup : convoys.backups) {
    std::string url = BackupUrl{destination, backup.info.uuid, Uuid(), backup.name}.to_string();
    list.backups.push_back({std::move(url), std::move(backup.info), backup.name.backup});
  }
  return list;
}

Backups::Listed Backups::inspect(const StoreAddress& address) {
  const BackupUrl url = BackupUrl::parse(address.url);
  if (url.convoy) {
    const auto objects =
        destinations_.open(url.destination, address.s3_endpoint, stopping_.get_token()).objects;
    return {url.to_string(), read_convoy_backup(*objects, *url.convoy).info, url.convoy->backup};
  }
  const OpenStore open = open_store(url.destination, address, stopping_.get_token());
  return {url.to_string(), read_backup(open.store, url.lineage, url.backup).info};
}

void Backups::remove(const StoreAddress& address, Job& job) {
  const BackupUrl url = BackupUrl::parse(address.url);
  check_is_ours(url, "delete it with Convoy");
  const Mark mark = being_removed(url.backup);
  const OpenStore open = open_store(url.destination, address, job.stop_token());
  delete_backup(open.store, url.lineage, url.backup, report_to(job), job.stop_token());
  catalog_.forget_backup(url.backup);
}

}  // namespace convoy
