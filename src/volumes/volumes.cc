#include "volumes/volumes.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/size.h"
#include "sys/block_device.h"
#include "sys/file.h"
#include "volumes/device_name.h"
#include "volumes/filesystem.h"
#include "volumes/pool_space.h"

namespace convoy {
namespace {

void check_size(std::uint64_t size, Sectors block_size) {
  if (size == 0 || size > kMaxVolumeSize) {
    throw Error(ErrorKind::kInvalidArgument, "a volume can't have {} bytes: give a size up to {}",
                size, format_size(kMaxVolumeSize));
  }
  const std::uint64_t block = block_size.bytes();
  if (size % block == 0) return;
  throw Error(ErrorKind::kInvalidArgument,
              "a size of {} bytes is not a multiple of the pool's blocks of {}: the next one is {} "
              "bytes",
              size, format_size(block), (size / block + 1) * block);
}

}  // namespace

Volumes::Volumes(Catalog& catalog, ThinPool& pool, MountNamespace mounts, VolumesOptions options)
    : catalog_(catalog),
      pool_(pool),
      mounts_(std::move(mounts)),
      options_(std::move(options)),
      pool_name_(catalog.pool().value().name),
      boot_id_(read_text_file("/proc/sys/kernel/random/boot_id")),
      transactions_(catalog, pool),
      readers_(catalog, pool, pool_name_) {}

PoolRow Volumes::pool() {
  return catalog_.pool().value();
}

std::optional<PoolStatus> Volumes::pool_status_now() {
  std::optional<PoolStatus> status;
  transactions_.between_steps(kStatusPatience, [&] { status = pool_.status(); });
  return status;
}

void Volumes::grow_pool() {
  const PoolRow known = pool();
  PoolRow grown = known;
  grown.data_size = block_device_size(known.data_device);
  grown.metadata_size = block_device_size(known.metadata_device);
  const PoolStatus before = pool_.status();
  // First: one without a label is known by the size of its data device when the daemon starts.
  catalog_.set_pool_devices(grown);
  try {
    if (!transactions_.between_steps(kBusyRetryLimit, [&] { pool_.grow(); }))
      throw Error(ErrorKind::kBusy, "the pool is being changed for long; try again later");
  } catch (const Error&) {
    catalog_.set_pool_devices(known);
    throw;
  }
  const PoolStatus after = pool_.status();
  if (after.total_data == before.total_data &&
      after.total_metadata_blocks == before.total_metadata_blocks) {
    throw Error(ErrorKind::kInvalidArgument,
                "neither {} nor {} has become larger: enlarge one before (lvextend for a logical "
                "volume, growpart for a partition, losetup --set-capacity for a larger file)",
                known.data_device.native(), known.metadata_device.native());
  }
  spdlog::info("the pool has grown to {} for data and {} for metadata",
               format_size(after.total_data.bytes(known.block_size)),
               format_size(after.total_metadata_blocks * kMetadataBlockBytes));
}

// --- Volumes ---

VolumeRow Volumes::make_device(VolumeRow volume) {
  check_device_name("volume", volume.name, pool_name_);
  require_room(pool_.status());
  if (!catalog_.state_of_name(volume.name) && pool_.name_in_use(volume.name)) {
    throw Error(ErrorKind::kAlreadyExists,
                "a dm device named '{}' that is not ours exists already; choose another name",
                volume.name);
  }
  volume.created = now();
  volume = transactions_.create(std::move(volume));
  try {
    activate(volume);
  } catch (...) {
    abandon(volume);
    throw;
  }
  return volume;
}

void Volumes::activate(const DeviceRow& volume) {
  pool_.activate(volume.name, volume.uuid.to_string(), {volume.thin_id},
                 Sectors::of_bytes(volume.size), Access::kReadWrite);
}

void Volumes::require_active(const VolumeRow& volume) {
  if (pool_.device_number(volume.name)) return;
  throw Error(ErrorKind::kUnavailable,
              "volume '{}' is not active: {}; start the daemon again to activate it", volume.name,
              pool_.name_in_use(volume.name)
                  ? "a dm device of its name is not ours, so rename or remove that one"
                  : "it has no dm device, for a reason that the daemon logged as it started");
}

void Volumes::destroy(const VolumeRow& volume) {
  catalog_.set_state_with_snapshots(volume.uuid, DeviceState::kDeleting);
  for (const SnapshotRow& snapshot : catalog_.snapshots_of(volume.uuid))
    transactions_.remove(snapshot);
  transactions_.remove(volume);
}

void Volumes::abandon(const VolumeRow& volume) noexcept {
  try {
    pool_.deactivate(volume.name);
    destroy(volume);
  } catch (const std::exception& error) {
    spdlog::error("what was made of volume {} stays, hidden, until the next start: {}", volume.name,
                  error.what());
  }
}

VolumeView Volumes::create(const NewVolume& request, const std::stop_token& stop) {
  const PoolRow pool = catalog_.pool().value();
  VolumeRow volume;
  volume.uuid = volume.lineage = Uuid::random();
  volume.name = request.name;
  volume.size = request.size.value_or(pool.default_size);
  volume.filesystem = request.filesystem.value_or(pool.default_filesystem);
  volume.mkfs_options = request.mkfs_options.value_or("");
  volume.mount_options = request.mount_options.value_or("");
  parse_mount_options(volume.mount_options);
  check_filesystem(volume.filesystem);
  check_size(volume.size, pool.block_size);
  check_filesystem_size(volume.filesystem, volume.size);

  volume = make_device(std::move(volume));
  const auto lock = volume_locks_.lock(volume.uuid);
  try {
    make_filesystem(volume, stop);
    catalog_.set_state(volume.uuid, DeviceState::kReady);
  } catch (...) {
    abandon(volume);
    throw;
  }
  spdlog::info("volume {} created: {} of {}", volume.name, format_size(volume.size),
               volume.filesystem);
  return view(volume, mounts_.mounts(), {});
}

void Volumes::make_filesystem(const VolumeRow& volume, const std::stop_token& stop) {
  try {
    convoy::make_filesystem(volume.filesystem, pool_.device_path(volume.name), volume.mkfs_options,
                            options_.command_timeout, stop);
  } catch (const Error& error) {
    // All that mkfs has seen of it is an input/output error.
    if (error.kind() != ErrorKind::kIo ||
        pool_.status().mode != PoolStatus::Mode::kOutOfDataSpace) {
      throw;
    }
    throw Error(ErrorKind::kNoSpace,
                "the pool has no space left on its data device for the file system of volume '{}' "
                "of {}; choose a smaller size, or delete volumes or snapshots first",
                volume.name, format_size(volume.size));
  }
}

Volumes::Construction Volumes::begin_restore(const NewVolume& request,
                                             const BackedUpVolume& source) {
  // Where a backup does not tell it, it was Convoy's, and the block that would is damaged.
  const std::string filesystem =
      source.filesystem.empty()
          ? request.filesystem.value_or(catalog_.pool().value().default_filesystem)
          : source.filesystem;
  check_filesystem(filesystem);
  if (source.size == 0 || source.size > kMaxVolumeSize || source.size % kSectorBytes != 0) {
    throw Error(ErrorKind::kInvalidArgument, "a volume can't have the backup's size of {} bytes",
                source.size);
  }
  if (request.size && *request.size != source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "a size of {} bytes was asked for, but the backup's volume has {}; leave it out",
                *request.size, source.size);
  }
  if (request.filesystem && *request.filesystem != filesystem) {
    throw Error(ErrorKind::kInvalidArgument,
                "the file system {} was asked for, but the backup's volume has {}; leave it out",
                *request.filesystem, filesystem);
  }
  if (request.mkfs_options) {
    throw Error(ErrorKind::kInvalidArgument,
                "a volume that is filled from a backup takes no mkfs options; leave them out");
  }
  VolumeRow volume;
  volume.uuid = Uuid::random();
  volume.name = request.name;
  volume.size = source.size;
  volume.filesystem = filesystem;
  volume.lineage = source.lineage;
  volume.backup = source.backup;
  volume.mount_options = request.mount_options.value_or("");
  parse_mount_options(volume.mount_options);
  return {*this, make_device(std::move(volume))};
}

Volumes::Construction::~Construction() {
  if (volumes_ != nullptr) volumes_->abandon(volume_);
}

std::filesystem::path Volumes::Construction::device() const {
  return volumes_->pool_.device_path(volume_.name);
}

VolumeView Volumes::Construction::commit() {
  volumes_->catalog_.set_state(volume_.uuid, DeviceState::kReady);
  Volumes& volumes = *std::exchange(volumes_, nullptr);
  spdlog::info("volume {} restored: {} of {} from backup {}", volume_.name,
               format_size(volume_.size), volume_.filesystem, volume_.backup->to_string());
  return volumes.view(volume_, volumes.mounts_.mounts(), {});
}

Volumes::Locked Volumes::lock_volume(std::string_view reference) {
  const VolumeRow found = catalog_.find_volume(reference);
  ObjectLocks::Lock lock = volume_locks_.lock(found.uuid);
  // It may have been deleted while we waited.
  Locked locked{catalog_.find_volume(found.uuid.to_string()), std::move(lock)};
  const std::lock_guard guard(replaced_mutex_);
  if (const auto replaced = replaced_.find(found.uuid); replaced != replaced_.end())
    throw Error(ErrorKind::kBusy, "volume '{}' is being restored by {}; wait for its end",
                locked.volume.name, replaced->second);
  return locked;
}

void Volumes::check_not_mounted(const VolumeRow& volume) {
  const std::filesystem::path mountpoint = mounted_at(volume, mounts_.mounts());
  if (mountpoint.empty()) return;
  throw Error(ErrorKind::kBusy, "volume '{}' is mounted at {}; unmount it first", volume.name,
              mountpoint.native());
}

void Volumes::check_not_active_elsewhere(const VolumeRow& volume,
                                         const std::vector<SnapshotRow>& snapshots) {
  const std::map<std::uint32_t, std::string> others = pool_.active_in_others();
  const auto check = [&](const DeviceRow& device, const char* what) {
    const auto other = others.find(device.thin_id);
    if (other == others.end()) return;
    throw Error(ErrorKind::kBusy,
                "{0} '{1}' is active as /dev/mapper/{2}, too, which is not ours: remove that one "
                "first (dmsetup remove {2})",
                what, device.name, other->second);
  };
  check(volume, "volume");
  for (const SnapshotRow& snapshot : snapshots) check(snapshot, "snapshot");
}

void Volumes::remove(std::string_view reference) {
  const auto [volume, lock] = lock_volume(reference);
  check_not_mounted(volume);
  const std::vector<SnapshotRow> snapshots = catalog_.snapshots_of(volume.uuid);
  readers_.close(snapshots);

  // What can't be done is said before anything is done.
  check_not_active_elsewhere(volume, snapshots);
  transactions_.recover();
  pool_.deactivate(volume.name);
  try {
    destroy(volume);
  } catch (const Error&) {
    // Still a volume, if not even the first step was recorded.
    if (catalog_.state_of_name(volume.name) == DeviceState::kReady) activate(volume);
    throw;
  }
  // Somebody else may have unmounted it.
  if (!volume.mountpoint.empty()) remove_default_mountpoint(volume, volume.mountpoint);
  spdlog::info("volume {} deleted", volume.name);
}

VolumeView Volumes::view(const VolumeRow& volume, const std::vector<Mount>& mounts,
                         std::vector<SnapshotRow> snapshots) {
  return {volume, pool_.device_path(volume.name), mounted_at(volume, mounts), std::move(snapshots)};
}

VolumeView Volumes::inspect(std::string_view reference) {
  const VolumeRow volume = catalog_.find_volume(reference);
  std::vector<SnapshotRow> snapshots = catalog_.snapshots_of(volume.uuid);
  std::erase_if(snapshots,
                [](const SnapshotRow& snapshot) { return snapshot.state != DeviceState::kReady; });
  return view(volume, mounts_.mounts(), std::move(snapshots));
}

std::optional<std::uint64_t> Volumes::used_bytes(const VolumeRow& volume) {
  std::optional<Sectors> mapped;
  transactions_.between_steps(kStatusPatience, [&] { mapped = pool_.mapped(volume.name); });
  return mapped ? std::optional(mapped->bytes()) : std::nullopt;
}

std::vector<VolumeView> Volumes::list() {
  std::map<Uuid, std::vector<SnapshotRow>> snapshots;
  for (SnapshotRow& snapshot : catalog_.snapshots()) {
    if (snapshot.state == DeviceState::kReady)
      snapshots[snapshot.volume].push_back(std::move(snapshot));
  }
  const std::vector<Mount> mounts = mounts_.mounts();
  std::vector<VolumeView> views;
  for (const VolumeRow& volume : catalog_.volumes()) {
    if (volume.state == DeviceState::kReady)
      views.push_back(view(volume, mounts, std::move(snapshots[volume.uuid])));
  }
  return views;
}

// --- Replacement ---

Volumes::Replacement Volumes::begin_replacement(std::string_view reference,
                                                const BackedUpVolume& source,
                                                const std::string& job) {
  const auto [volume, lock] = lock_volume(reference);
  if (volume.size != source.size) {
    throw Error(ErrorKind::kInvalidArgument,
                "volume '{}' has {} bytes, and the backup's volume has {}; restore it to a volume "
                "of its own, by convoy create --backup",
                volume.name, volume.size, source.size);
  }
  if (volume.filesystem != source.filesystem) {
    throw Error(ErrorKind::kInvalidArgument,
                "volume '{}' has the file system {}, and the backup's volume has {}; restore it to "
                "a volume of its own, by convoy create --backup",
                volume.name, volume.filesystem, source.filesystem);
  }
  check_not_mounted(volume);
  require_active(volume);
  // Else the exchange would fail, when all is restored.
  if (is_held(pool_.device_path(volume.name))) {
    throw Error(ErrorKind::kBusy,
                "volume '{}' is in use: it is mounted in another mount namespace, as a container "
                "has one, or another device is built on it; end that first",
                volume.name);
  }
  require_room(pool_.status());
  VolumeRow copy = volume;
  copy.uuid = Uuid::random();
  copy.name = fmt::format("{}-{}", pool_name_, copy.uuid.to_string());
  copy.created = now();
  copy = transactions_.create(std::move(copy), volume);
  Replacement replacement(*this, volume, copy, source.backup);  // which removes it after a failure
  {
    const std::lock_guard guard(replaced_mutex_);
    replaced_[volume.uuid] = job;
  }
  activate(copy);
  return replacement;
}

Volumes::Replacement::~Replacement() {
  if (volumes_ == nullptr) return;
  try {
    // Read anew: its thin device is another one since the exchange, and nothing but the catalog
    // knows whether an exchange that failed took place.
    if (const auto copy = volumes_->catalog_.volume(copy_.uuid)) volumes_->abandon(*copy);
  } catch (const std::exception& error) {
    spdlog::error("what was made to replace volume {} stays, hidden, until the next start: {}",
                  volume_.name, error.what());
  }
  const std::lock_guard guard(volumes_->replaced_mutex_);
  volumes_->replaced_.erase(volume_.uuid);
}

std::filesystem::path Volumes::Replacement::device() const {
  return volumes_->pool_.device_path(copy_.name);
}

VolumeView Volumes::Replacement::commit() {
  Volumes& volumes = *volumes_;
  const auto lock = volumes.volume_locks_.lock(volume_.uuid);
  volumes.transactions_.recover();  // or throws, before anything is done
  volumes.pool_.deactivate(copy_.name);
  volumes.pool_.deactivate(volume_.name);  // fails if somebody has it open
  const auto activate_again = [&] {
    volumes.activate(volumes.catalog_.volume(volume_.uuid).value());
  };
  try {
    volumes.catalog_.exchange_thin_devices(volume_.uuid, copy_.uuid, backup_);
  } catch (const Error&) {
    activate_again();
    throw;
  }
  // What the volume was goes with the copy's row, by the destructor.
  spdlog::info("volume {} restored to what it was in backup {}", volume_.name, backup_.to_string());
  try {
    activate_again();
  } catch (const Error& error) {
    throw Error(ErrorKind::kUnavailable,
                "volume '{}' is restored, but can't be used before the daemon is restarted: {}",
                volume_.name, error.message());
  }
  return volumes.inspect(volume_.uuid.to_string());
}

// --- Snapshots ---

// Most of what the file system has in memory goes to the disk now, not while its writers are frozen
// and the pool is locked. That may take long, and a container that starts need not wait for it: so
// it is done without the volume's lock. An unmount, which would find the mount busy, waits.
void Volumes::write_back(std::string_view reference) {
  const VolumeRow volume = catalog_.find_volume(reference);
  const auto lock = write_back_locks_.lock(volume.uuid);
  const std::filesystem::path mountpoint = mounted_at(volume, mounts_.mounts());
  if (!mountpoint.empty()) mounts_.sync(mountpoint);
}

SnapshotRow Volumes::create_snapshot(std::string_view reference, std::string name) {
  write_back(reference);
  const auto [volume, lock] = lock_volume(reference);
  require_active(volume);
  SnapshotRow snapshot;
  snapshot.uuid = Uuid::random();
  snapshot.name = name.empty() ? "snapshot-" + random_hex(16) : std::move(name);
  check_device_name("snapshot", snapshot.name, pool_name_);
  require_room(pool_.status());
  snapshot.size = volume.size;
  snapshot.volume = volume.uuid;
  snapshot.created = now();

  snapshot = transactions_.create(std::move(snapshot), volume);
  spdlog::info("snapshot {} of volume {} created", snapshot.name, volume.name);
  return snapshot;
}

void Volumes::remove_snapshot(std::string_view reference) {
  const SnapshotRow found = catalog_.find_snapshot(reference);
  const auto lock = volume_locks_.lock(found.volume);
  const SnapshotRow snapshot = catalog_.find_snapshot(found.uuid.to_string());
  const VolumeRow volume = catalog_.volume(snapshot.volume).value();
  readers_.close({snapshot});
  transactions_.recover();  // or throws, before anything is done
  catalog_.set_state(snapshot.uuid, DeviceState::kDeleting);
  try {
    transactions_.remove(snapshot);
  } catch (const Error& error) {
    // Somebody has the thin device active by another name: nothing was done to it.
    if (error.kind() == ErrorKind::kBusy) catalog_.set_state(snapshot.uuid, DeviceState::kReady);
    throw;
  }
  spdlog::info("snapshot {} of volume {} deleted", snapshot.name, volume.name);
}

SnapshotRow Volumes::inspect_snapshot(std::string_view reference) {
  return catalog_.find_snapshot(reference);
}

SnapshotReader Volumes::read_snapshot(std::string_view reference, const std::string& job) {
  const SnapshotRow found = catalog_.find_snapshot(reference);
  const auto lock = volume_locks_.lock(found.volume);
  return readers_.read(catalog_.find_snapshot(found.uuid.to_string()), job);
}

}  // namespace convoy
