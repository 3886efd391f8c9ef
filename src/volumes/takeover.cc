#include "volumes/takeover.h"

#include <algorithm>
#include <map>
#include <set>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/name.h"
#include "sys/file.h"
#include "volumes/device_name.h"
#include "volumes/metadata_snapshots.h"

namespace convoy {
namespace {

using Devices = std::map<std::uint32_t, DeviceDetails>;

Devices devices_in(Metadata& metadata) {
  Devices devices;
  for (const auto& [thin_id, details] : metadata.devices()) devices.emplace(thin_id, details);
  return devices;
}

// One volume that is missing is the loss of a power cut; if all are, it is another pool.
void require_some_volume(const ConvoyRoot& convoy, const PoolRow& pool, const Devices& devices) {
  if (convoy.volumes.empty() ||
      std::ranges::any_of(convoy.volumes, [&](const ConvoyVolume& volume) {
        return devices.contains(volume.thin_id);
      })) {
    return;
  }
  throw Error(
      ErrorKind::kInvalidArgument,
      "dm.metadatadev={} has none of the {} volumes in Convoy's files; give the device that "
      "Convoy's pool was made on",
      pool.metadata_device.native(), convoy.volumes.size());
}

// The catalog's rows of what the files name and the pool has.
class Inventory {
 public:
  Inventory(const PoolRow& pool, Devices devices, std::string boot_id)
      : pool_(pool), devices_(std::move(devices)), boot_id_(std::move(boot_id)) {}

  // Volumes first: Convoy let a snapshot have the name of another volume, which that one keeps.
  void add(const std::vector<ConvoyVolume>& convoy) {
    std::vector<const ConvoyVolume*> sources;  // of volumes_
    for (const ConvoyVolume& volume : convoy) {
      if (add(volume)) sources.push_back(&volume);
    }
    for (std::size_t i = 0; i < sources.size(); ++i) add_snapshots(*sources[i], volumes_[i]);
  }

  void report_unnamed() const {
    for (const auto& [thin_id, details] : devices_) {
      if (thin_ids_.contains(thin_id)) continue;
      spdlog::warn(
          "the pool has a thin device {0} of {1} blocks that Convoy's files don't name; it stays. "
          "To see it: dmsetup create NAME --table '0 SECTORS thin /dev/mapper/{2} {0}'; to delete "
          "it: dmsetup message {2} 0 'delete {0}'",
          thin_id, details.mapped_blocks, pool_.name);
    }
  }

  const std::vector<VolumeEntry>& volumes() const { return volumes_; }

  // Greater than all that the pool has had.
  std::uint32_t next_thin_id(std::uint32_t last_of_convoy) const {
    std::uint32_t last = last_of_convoy;
    if (!devices_.empty()) last = std::max(last, devices_.rbegin()->first);
    return last + 1;
  }

 private:
  bool add(const ConvoyVolume& volume) {
    try {
      volumes_.push_back(take(volume));
      return true;
    } catch (const Error& error) {
      report("volume", volume.name, volume.thin_id, volume.size, error.message());
      for (const ConvoySnapshot& snapshot : volume.snapshots)
        report("snapshot", snapshot.name, snapshot.thin_id, volume.size, "its volume is not");
      return false;
    }
  }

  void add_snapshots(const ConvoyVolume& convoy, VolumeEntry& taken) {
    for (const ConvoySnapshot& snapshot : convoy.snapshots) {
      try {
        taken.snapshots.push_back(take(snapshot, taken.volume));
      } catch (const Error& error) {
        report("snapshot", snapshot.name, snapshot.thin_id, convoy.size, error.message());
      }
    }
  }

  // Volumes and snapshots share one space of names and one of thin ids. Throws if this one's is
  // taken, or the pool doesn't have it.
  DeviceDetails claim(const char* kind, const std::string& name, std::uint32_t thin_id) {
    check_device_name(kind, name, pool_.name);
    const auto found = devices_.find(thin_id);
    if (found == devices_.end())
      throw Error(ErrorKind::kNotFound, "the pool has no thin device {}", thin_id);
    if (names_.contains(name)) throw Error(ErrorKind::kAlreadyExists, "another one has that name");
    if (!thin_ids_.insert(thin_id).second)
      throw Error(ErrorKind::kAlreadyExists, "another one has thin device {}", thin_id);
    names_.insert(name);
    return found->second;
  }

  VolumeEntry take(const ConvoyVolume& convoy) {
    if (convoy.size == 0 || convoy.size % kSectorBytes != 0)
      throw Error(ErrorKind::kInvalidArgument, "a volume can't have {} bytes", convoy.size);
    claim("volume", convoy.name, convoy.thin_id);
    VolumeEntry taken;
    VolumeRow& volume = taken.volume;
    volume.uuid = volume.lineage = Uuid::random();
    volume.name = convoy.name;
    volume.state = DeviceState::kReady;
    volume.thin_id = convoy.thin_id;
    volume.size = convoy.size;
    volume.created = convoy.created;
    volume.filesystem = convoy.filesystem.empty() ? pool_.default_filesystem : convoy.filesystem;
    if (convoy.mountpoint.is_absolute()) {
      volume.mountpoint = convoy.mountpoint;
      taken.users = {{VolumeUser::Kind::kCommand, "", boot_id_}};
    }
    return taken;
  }

  SnapshotRow take(const ConvoySnapshot& convoy, const VolumeRow& volume) {
    const DeviceDetails details = claim("snapshot", convoy.name, convoy.thin_id);
    SnapshotRow snapshot;
    snapshot.uuid = Uuid::random();
    snapshot.name = convoy.name;
    snapshot.state = DeviceState::kReady;
    snapshot.thin_id = convoy.thin_id;
    snapshot.size = volume.size;
    snapshot.created = convoy.created;
    snapshot.volume = volume.uuid;
    snapshot.transaction_id = details.transaction_id;
    snapshot.creation_time = details.creation_time;
    return snapshot;
  }

  void report(const char* kind, const std::string& name, std::uint32_t thin_id, std::uint64_t size,
              const std::string& why) {
    const bool is_there = devices_.contains(thin_id) && thin_ids_.insert(thin_id).second;
    const std::string how =
        is_there ? fmt::format(
                       "; its data stay in the pool: dmsetup create NAME --table '0 {} "
                       "thin /dev/mapper/{} {}'",
                       Sectors::of_bytes(size).count, pool_.name, thin_id)
                 : "";
    spdlog::warn("Convoy's {} '{}' is not taken over: {}{}", kind, name, why, how);
  }

  const PoolRow& pool_;
  Devices devices_;
  std::string boot_id_;
  std::vector<VolumeEntry> volumes_;
  std::set<std::string> names_;
  std::set<std::uint32_t> thin_ids_;
};

Devices devices_of(Catalog& catalog, KernelThinPool& kernel_pool) {
  release_left_hold(catalog, kernel_pool);  // of an earlier attempt, or of Convoy
  MetadataSnapshots snapshots(catalog, kernel_pool);
  const auto hold = snapshots.hold(0);
  Metadata metadata(BlockDevice::open(kernel_pool.metadata_device(), Access::kReadOnly),
                    hold.root());
  Devices devices = devices_in(metadata);
  hold.check();
  return devices;
}

void take_over_files(Catalog& catalog, KernelThinPool& kernel_pool, const PoolRow& pool,
                     const std::filesystem::path& root) {
  const ConvoyRoot convoy = read_convoy_root(root);
  Devices devices = devices_of(catalog, kernel_pool);
  try {
    require_some_volume(convoy, pool, devices);
  } catch (const Error&) {
    catalog.remove_pool();  // its row names the wrong devices
    throw;
  }
  Inventory inventory(pool, std::move(devices), read_text_file("/proc/sys/kernel/random/boot_id"));
  for (const std::string& sentence : convoy.left_out)
    spdlog::warn("not taken over from Convoy: {}", sentence);
  inventory.add(convoy.volumes);
  inventory.report_unnamed();
  catalog.replace_devices(inventory.volumes(), inventory.next_thin_id(convoy.pool.last_thin_id));
}

void adopt_active(Catalog& catalog, KernelThinPool& kernel_pool) {
  for (const VolumeRow& volume : catalog.volumes()) {
    const Adoption adoption = kernel_pool.adopt(volume.name, volume.uuid.to_string(),
                                                {volume.thin_id}, Sectors::of_bytes(volume.size));
    if (adoption != Adoption::kForeign) continue;
    spdlog::error(
        "/dev/mapper/{0} is left alone: it is not thin device {1} with {2} bytes, as in Convoy's "
        "files; volume {0} can't be used before it is unmounted and away (dmsetup remove) and "
        "the daemon is started again",
        volume.name, volume.thin_id, volume.size);
  }
  // Convoy made one for each backup, and left it when it was killed. As ours, the start takes it
  // away with all work devices.
  for (const SnapshotRow& snapshot : catalog.snapshots()) {
    const Adoption adoption =
        kernel_pool.adopt(snapshot.name, snapshot.uuid.to_string(), {snapshot.thin_id},
                          Sectors::of_bytes(snapshot.size));
    if (adoption != Adoption::kForeign) continue;
    spdlog::warn("/dev/mapper/{} is left alone: it is not the snapshot of that name",
                 snapshot.name);
  }
}

}  // namespace

PoolRow row_of(const ConvoyPool& convoy) {
  check_name("thin pool", convoy.name);
  PoolRow pool;
  pool.uuid = Uuid::generate();
  pool.name = convoy.name;
  pool.data_device = convoy.data_device;
  pool.data_size = convoy.data_size;
  pool.metadata_device = convoy.metadata_device;
  pool.block_size = convoy.block_size;
  pool.transaction_id = random_bits(48);
  pool.default_size = convoy.default_size;
  pool.default_filesystem = convoy.default_filesystem.empty() ? "ext4" : convoy.default_filesystem;
  pool.labelled = false;
  return pool;
}

void require_convoy_pool(const ConvoyRoot& convoy, const PoolRow& row, Metadata& metadata) {
  const Sectors block_size = metadata.superblock().data_block_size;
  if (block_size != row.block_size) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "dm.metadatadev={} has a pool with blocks of {} sectors, but in Convoy's files they "
        "have {}; give the device that Convoy's pool was made on",
        row.metadata_device.native(), block_size.count, row.block_size.count);
  }
  require_some_volume(convoy, row, devices_in(metadata));
}

void finish_takeover(Catalog& catalog, KernelThinPool& kernel_pool, const PoolRow& pool,
                     const std::filesystem::path& root) {
  const PoolStatus status = kernel_pool.status();
  require_writable(status);
  if (status.transaction_id != pool.transaction_id) {
    take_over_files(catalog, kernel_pool, pool, root);
    kernel_pool.set_transaction_id(status.transaction_id, pool.transaction_id);
  }
  kernel_pool.make_ours();
  adopt_active(catalog, kernel_pool);
  rename_convoy_files(root);
  catalog.set_pool_ready();
  spdlog::info("the pool {} of Rancher Convoy is taken over, with {} volumes and {} snapshots",
               pool.name, catalog.volumes().size(), catalog.snapshots().size());
}

}  // namespace convoy
