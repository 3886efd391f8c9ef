#include "volumes/adoption.h"

#include <algorithm>
#include <map>
#include <set>

#include <fcntl.h>
#include <fmt/chrono.h>
#include <spdlog/spdlog.h>

#include "base/crash_point.h"
#include "base/error.h"
#include "base/limits.h"
#include "catalog/catalog_copy.h"
#include "devmapper/kernel_thin_pool.h"
#include "sys/file.h"
#include "volumes/convoy_root.h"
#include "volumes/device_name.h"
#include "volumes/filesystem.h"
#include "volumes/metadata_snapshots.h"
#include "volumes/pool_inventory.h"
#include "volumes/pool_label.h"
#include "volumes/pool_setup.h"

namespace convoy {
namespace {

// A catalog that is being made; removed unless it is put in its place.
class NewCatalog {
 public:
  explicit NewCatalog(const std::filesystem::path& root)
      : target_(catalog_path(root)), file_(target_.native() + ".new") {
    remove();
  }
  NewCatalog(const NewCatalog&) = delete;
  NewCatalog& operator=(const NewCatalog&) = delete;
  ~NewCatalog() { remove(); }

  const std::filesystem::path& file() const { return file_; }

  // Nobody has it open any more, so it is one file again. What is left of the old one's log would
  // be taken for its own.
  void put_in_place() {
    const std::filesystem::path log = file_.native() + "-wal";
    if (std::filesystem::exists(log) && std::filesystem::file_size(log) > 0)
      throw Error(ErrorKind::kIo, "{}: SQLite could not complete it", file_.native());
    for (const char* const suffix : {"-wal", "-shm"})
      std::filesystem::remove(target_.native() + suffix);
    fsync_directory(target_.parent_path());
    fsync_file(open_file(file_, O_RDONLY).get(), file_);
    std::filesystem::rename(file_, target_);
    fsync_directory(target_.parent_path());
    crash_point("file renamed");
  }

 private:
  void remove() const {
    for (const char* const suffix : {"", "-wal", "-shm"}) {
      std::error_code error;
      std::filesystem::remove(file_.native() + suffix, error);
    }
  }

  const std::filesystem::path target_;
  const std::filesystem::path file_;
};

// Brings the rows of a catalog's devices in step with a pool that is up.
class Reconciliation {
 public:
  Reconciliation(Catalog& catalog, KernelThinPool& pool, PoolRow row)
      : catalog_(catalog),
        pool_(pool),
        row_(std::move(row)),
        probe_(fmt::format("{}-{}", row_.name, row_.uuid.to_string())) {}

  void run() {
    pool_.deactivate(probe_);  // of a process that was killed
    for (const ActiveThin& device : pool_.active()) active_[device.thin_id.value] = device;
    read_metadata();
    for (auto& [index, device] : unnamed_) complete(volumes_[index].volume, device);
    for (const Unsized& snapshot : unsized_) set_size(snapshot);
    catalog_.replace_devices(volumes_, next_thin_id_);
  }

 private:
  // A snapshot whose volume is to be found.
  struct Orphan {
    FoundDevice device;
    std::optional<SnapshotRow> row;
  };
  // A snapshot whose volume's size is not known yet.
  struct Unsized {
    std::size_t volume;
    std::size_t snapshot;
    PoolBlocks end;
  };
  using Devices = std::map<std::uint32_t, FoundDevice>;

  void read_metadata() {
    release_left_hold(catalog_, pool_);
    MetadataSnapshots snapshots(catalog_, pool_);
    const auto hold = snapshots.hold(0);
    Metadata metadata(BlockDevice::open(pool_.metadata_device(), Access::kReadOnly), hold.root());
    Devices devices;
    for (const FoundDevice& device : find_devices(metadata)) {
      next_thin_id_ = device.thin_id + 1;
      if (!row_.labelled || device.thin_id != kLabelThinId.value)
        devices.emplace(device.thin_id, device);
    }
    keep_volumes(devices);
    keep_snapshots(devices);
    for (const auto& [thin_id, device] : devices) {
      if (device.written || has_name(thin_id)) {
        add_volume(device, "");
      } else {
        orphans_.push_back({.device = device, .row = std::nullopt});
      }
    }
    find_families(metadata);
    hold.check();
  }

  // What was being deleted is so at the next start. What was being made may be whole by now, or
  // not: it comes out under another name.
  void keep_volumes(Devices& devices) {
    std::vector<VolumeRow> made;
    std::vector<VolumeRow> lost;
    for (const VolumeRow& volume : catalog_.volumes()) {
      if (volume.state == DeviceState::kCreating) {
        made.push_back(volume);
      } else if (devices.erase(volume.thin_id) == 0) {
        lost.push_back(volume);
      } else {
        keep(volume);
      }
    }
    for (const VolumeRow& copy : made) {
      if (!devices.contains(copy.thin_id)) continue;
      unfinished_.insert(copy.thin_id);
      // A restore onto a volume whose thin device is gone has taken its place.
      const auto replaced = std::ranges::find_if(lost, [&](const VolumeRow& volume) {
        return is_work_name(copy.name) && copy.lineage == volume.lineage &&
               copy.size == volume.size;
      });
      if (replaced == lost.end()) {
        spdlog::warn("volume {} was being made and may not be whole", copy.name);
        continue;
      }
      devices.erase(copy.thin_id);
      replaced->thin_id = copy.thin_id;
      keep(*replaced);
      lost.erase(replaced);
    }
    for (const VolumeRow& volume : lost)
      spdlog::warn("volume {} is not in the pool any more", volume.name);
  }

  void keep(const VolumeRow& volume) {
    names_.insert(volume.name);
    uuids_.insert(volume.uuid);
    index_of_[volume.uuid] = volumes_.size();
    volumes_.push_back({.volume = volume, .snapshots = {}, .users = catalog_.users(volume.uuid)});
  }

  bool is_work_name(const std::string& name) const {
    return name.starts_with(row_.name + "-") &&
           Uuid::parse(std::string_view(name).substr(row_.name.size() + 1));
  }

  void keep_snapshots(Devices& devices) {
    for (SnapshotRow& snapshot : catalog_.snapshots()) {
      const auto found = devices.find(snapshot.thin_id);
      if (found == devices.end() || !is_same(snapshot, found->second.details)) {
        spdlog::warn("snapshot {} is not in the pool any more", snapshot.name);
        continue;
      }
      if (snapshot.state == DeviceState::kCreating) snapshot.state = DeviceState::kReady;
      names_.insert(snapshot.name);
      if (const auto volume = index_of_.find(snapshot.volume); volume != index_of_.end()) {
        volumes_[volume->second].snapshots.push_back(snapshot);
      } else {
        orphans_.push_back({.device = found->second, .row = snapshot});
      }
      devices.erase(found);
    }
  }

  static bool is_same(const SnapshotRow& snapshot, const DeviceDetails& details) {
    return snapshot.transaction_id == details.transaction_id &&
           (!snapshot.creation_time || snapshot.creation_time == details.creation_time);
  }

  // The newest snapshot shares most with its volume, and each older one with the next.
  void find_families(Metadata& metadata) {
    if (orphans_.empty()) return;
    BlockOwners owners(metadata);
    for (std::size_t index = 0; index < volumes_.size(); ++index) {
      owners.give(volumes_[index].volume.thin_id, index);
      for (const SnapshotRow& snapshot : volumes_[index].snapshots)
        owners.give(snapshot.thin_id, index);
    }
    std::ranges::sort(orphans_, std::greater(),
                      [](const Orphan& orphan) { return orphan.device.details.creation_time; });
    for (const Orphan& orphan : orphans_) {
      const std::uint32_t thin_id = orphan.device.thin_id;
      const std::optional<std::size_t> family = owners.find(thin_id);
      if (family) {
        add_snapshot(orphan, *family);
        owners.give(thin_id, *family);
      } else {
        add_volume(orphan.device, orphan.row ? orphan.row->name : "");
        owners.give(thin_id, volumes_.size() - 1);
      }
    }
  }

  bool has_name(std::uint32_t thin_id) const {
    const auto active = active_.find(thin_id);
    if (active == active_.end() || unfinished_.contains(thin_id)) return false;
    const std::optional<Uuid> uuid = Uuid::parse(active->second.object_uuid);
    if (!uuid || uuids_.contains(*uuid) || names_.contains(active->second.name)) return false;
    try {
      check_device_name("volume", active->second.name, row_.name);
      return true;
    } catch (const Error&) {  // a device on which a snapshot was read
      return false;
    }
  }

  std::string free_name(std::uint32_t thin_id) {
    std::string name = fmt::format("recovered-{}", thin_id);
    while (!names_.insert(name).second)
      name = fmt::format("recovered-{}-{}", thin_id, random_hex(4));
    return name;
  }

  void add_volume(const FoundDevice& device, const std::string& name) {
    VolumeRow volume;
    volume.state = DeviceState::kReady;
    volume.thin_id = device.thin_id;
    volume.created = now();
    volume.uuid = Uuid::random();
    if (has_name(device.thin_id)) {
      const ActiveThin& active = active_.at(device.thin_id);
      volume.name = active.name;
      volume.uuid = Uuid::parse(active.object_uuid).value();
      volume.size = active.size.bytes();
      names_.insert(volume.name);
    } else {
      volume.name = name.empty() ? free_name(device.thin_id) : name;
    }
    volume.lineage = volume.uuid;
    unnamed_.emplace_back(volumes_.size(), device);
    volumes_.push_back({.volume = volume, .snapshots = {}, .users = {}});
  }

  void add_snapshot(const Orphan& orphan, std::size_t volume) {
    SnapshotRow snapshot;
    if (orphan.row) {
      snapshot = *orphan.row;
    } else {
      snapshot.uuid = Uuid::random();
      snapshot.name = free_name(orphan.device.thin_id);
      snapshot.state = DeviceState::kReady;
      snapshot.created = now();
      snapshot.thin_id = orphan.device.thin_id;
      unsized_.push_back({.volume = volume,
                          .snapshot = volumes_[volume].snapshots.size(),
                          .end = orphan.device.end});
    }
    snapshot.volume = volumes_[volume].volume.uuid;
    snapshot.transaction_id = orphan.device.details.transaction_id;
    snapshot.creation_time = orphan.device.details.creation_time;
    spdlog::warn("thin device {} becomes snapshot {} of volume {}", snapshot.thin_id, snapshot.name,
                 volumes_[volume].volume.name);
    volumes_[volume].snapshots.push_back(snapshot);
  }

  // Size and file system, from the device itself.
  void complete(VolumeRow& volume, const FoundDevice& device) {
    const std::uint64_t block = row_.block_size.bytes();
    const std::uint64_t mapped = std::max<std::uint64_t>(device.end.count, 1) * block;
    pool_.activate(probe_, "adoption", {volume.thin_id}, Sectors::of_bytes(mapped),
                   Access::kReadOnly);
    std::optional<FoundFilesystem> filesystem;
    try {
      filesystem = find_filesystem(pool_.device_path(probe_));
    } catch (const Error& error) {
      spdlog::warn("thin device {}: its file system can't be read, and with it its size: {}",
                   volume.thin_id, error.message());
    }
    pool_.deactivate(probe_);
    if (filesystem && filesystem->size > kMaxVolumeSize) filesystem.reset();
    volume.filesystem = filesystem ? filesystem->type : "";
    // The last block may reach beyond the volume's end.
    if (volume.size == 0)
      volume.size = filesystem && filesystem->size + block > mapped ? filesystem->size : mapped;
    spdlog::warn("thin device {} becomes volume {}", volume.thin_id, volume.name);
  }

  // A volume's size never changes; but what was its file system's may be less than it was.
  void set_size(const Unsized& snapshot) {
    const std::uint64_t block = row_.block_size.bytes();
    const std::uint64_t size = volumes_[snapshot.volume].volume.size;
    const std::uint64_t mapped = snapshot.end.count * block;
    volumes_[snapshot.volume].snapshots[snapshot.snapshot].size =
        mapped < size + block ? size : mapped;
  }

  Catalog& catalog_;
  KernelThinPool& pool_;
  const PoolRow row_;
  const std::string probe_;  // the dm device by which one is looked into
  std::map<std::uint32_t, ActiveThin> active_;
  std::vector<VolumeEntry> volumes_;
  std::map<Uuid, std::size_t> index_of_;
  std::vector<Orphan> orphans_;
  std::vector<std::pair<std::size_t, FoundDevice>> unnamed_;
  std::vector<Unsized> unsized_;
  std::set<std::string> names_;
  std::set<Uuid> uuids_;
  std::set<std::uint32_t> unfinished_;  // thin devices that were being made
  std::uint32_t next_thin_id_ = 1;
};

// Brings the catalog of a pool that is up in step with it.
void reconcile(Catalog& catalog, KernelThinPool& pool) {
  require_writable(pool.status());
  Reconciliation(catalog, pool, catalog.pool().value()).run();
}

// Makes it inactive, with whatever a reconciliation that failed has left active.
void shut_down(KernelThinPool& pool) noexcept {
  try {
    for (const ActiveThin& device : pool.active()) pool.deactivate(device.name);
    pool.shut_down();
  } catch (const std::exception& error) {
    spdlog::error("the pool stays active: {}", error.what());
  }
}

// Of the catalog that won't do: moved out of the way.
void put_aside(const std::filesystem::path& catalog) {
  const std::string suffix = fmt::format(".broken-{:%Y%m%dT%H%M%S}",
                                         fmt::gmtime(std::chrono::system_clock::to_time_t(now())));
  for (const char* const part : {"", "-wal"}) {
    const std::filesystem::path file = catalog.native() + part;
    if (!std::filesystem::exists(file)) continue;
    std::filesystem::rename(file, catalog.native() + suffix + part);
    crash_point("file renamed");
  }
  std::filesystem::remove(catalog.native() + "-shm");
  fsync_directory(catalog.parent_path());
}

// What is wrong with a catalog that should have a pool; nothing if it is as it should be.
std::optional<std::string> damage_of(const std::filesystem::path& catalog) {
  if (!std::filesystem::exists(catalog)) return "it is missing";
  try {
    if (!Catalog(catalog).pool()) return "it tells of no pool";
    return std::nullopt;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt) throw;
    return error.message();
  }
}

}  // namespace

std::filesystem::path catalog_path(const std::filesystem::path& root) {
  return root / "catalog.db";
}

bool has_catalog(const std::filesystem::path& root) {
  const std::filesystem::path catalog = catalog_path(root);
  if (std::filesystem::exists(catalog)) return true;
  return !has_convoy_pool(root) && std::filesystem::exists(catalog_copy_path(catalog));
}

void adopt_pool(const std::filesystem::path& root, const PoolOptions& options, int guard_lock_fd) {
  const PoolRow found = plan_adoption(options);
  const bool was_active = KernelThinPool::find(found.name).has_value();
  NewCatalog made(root);
  {
    Catalog catalog(made.file());
    catalog.insert_pool(found);
    catalog.set_pool_ready();
    const auto pool = open_known_pool(catalog, root, options, guard_lock_fd);
    try {
      reconcile(catalog, *pool);
    } catch (...) {
      if (!was_active) shut_down(*pool);
      throw;
    }
    if (!was_active) shut_down(*pool);
  }
  made.put_in_place();
}

void restore_lost_catalog(const std::filesystem::path& root, const PoolOptions& options,
                          int guard_lock_fd) {
  const std::filesystem::path catalog = catalog_path(root);
  const std::filesystem::path copy = catalog_copy_path(catalog);
  // A root that has never had a pool, or whose pool is to be taken over anew.
  if (!std::filesystem::exists(copy) || has_convoy_pool(root)) return;
  const std::optional<std::string> damage = damage_of(catalog);
  if (!damage) return;
  if (const auto damage_of_copy = damage_of(copy)) {
    throw Error(ErrorKind::kCorrupt,
                "neither the catalog {0} will do ({1}) nor its copy {0}.copy ({2}): move both "
                "away, and build a new one with 'convoy pool adopt' and the pool's devices",
                catalog.native(), *damage, *damage_of_copy);
  }
  spdlog::error("the catalog {} won't do ({}): its copy takes its place", catalog.native(),
                *damage);
  NewCatalog made(root);
  std::filesystem::copy_file(copy, made.file());
  {
    Catalog known(made.file());
    reconcile(known, *open_known_pool(known, root, options, guard_lock_fd));
  }
  put_aside(catalog);
  made.put_in_place();
}

}  // namespace convoy
