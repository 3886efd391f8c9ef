// Volumes: bringing pool, catalog and mounts together again at the daemon's start.
#include <algorithm>
#include <vector>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "volumes/volumes.h"

namespace convoy {
namespace {

// For what must not keep the rest from starting: the failure is logged with what it was about.
template <typename Action>
void attempt(const std::string& what, Action&& action) {
  try {
    std::forward<Action>(action)();
  } catch (const std::exception& error) {
    spdlog::error("{}: {}", what, error.what());
  }
}

}  // namespace

void Volumes::recover() {
  // First of all: whoever writes to a suspended device hangs.
  for (const ActiveThin& device : pool_.active()) {
    if (!device.suspended) continue;
    spdlog::warn("{} was left suspended and is resumed", device.name);
    attempt("dm device " + device.name, [&] { pool_.resume(device.name); });
  }
  // Before steps of the pool: a device can't be deleted while it is active.
  remove_strays();
  settle_pool();
  activate_all();
  catalog_.forget_users_before(boot_id_);
  // One volume may be mounted in a directory of another: that one comes before.
  std::vector<VolumeRow> volumes = catalog_.volumes();
  std::ranges::sort(volumes, {}, &VolumeRow::mountpoint);
  for (const VolumeRow& volume : volumes) {
    if (volume.state == DeviceState::kReady)
      attempt("volume " + volume.name, [&] { restore_mount(volume); });
  }
}

void Volumes::settle_pool() {
  try {
    release_left_hold(catalog_, pool_);
  } catch (const Error& error) {
    spdlog::error("{}", error.message());
  }
  try {
    transactions_.recover();
    remove_unfinished();
  } catch (const Error& error) {
    // A pool that doesn't belong to the catalog is not to be touched. One that can't be changed can
    // still be read.
    if (error.kind() == ErrorKind::kCorrupt) throw;
    spdlog::error("{}", error.message());
  }
}

void Volumes::remove_strays() {
  // Snapshots that were being read, and devices whose rows are gone.
  for (const ActiveThin& device : pool_.active()) {
    const std::optional<Uuid> uuid = Uuid::parse(device.object_uuid);
    if (uuid && catalog_.volume(*uuid)) continue;
    attempt("dm device " + device.name, [&] { pool_.deactivate(device.name); });
  }
}

void Volumes::remove_unfinished() {
  for (const VolumeRow& volume : catalog_.volumes()) {
    if (volume.state == DeviceState::kReady) continue;
    spdlog::info("volume {} was not finished and is removed", volume.name);
    abandon(volume);
  }
  for (const SnapshotRow& snapshot : catalog_.snapshots()) {
    if (snapshot.state == DeviceState::kReady) continue;
    const auto volume = catalog_.volume(snapshot.volume);
    spdlog::info("snapshot {} of volume {} was not finished and is removed", snapshot.name,
                 volume ? volume->name : "?");
    attempt("snapshot " + snapshot.name, [&] {
      catalog_.set_state(snapshot.uuid, DeviceState::kDeleting);
      transactions_.remove(snapshot);
    });
  }
}

void Volumes::activate_all() {
  const std::map<std::uint32_t, std::string> others = pool_.active_in_others();
  for (const VolumeRow& volume : catalog_.volumes()) {
    if (volume.state != DeviceState::kReady || pool_.device_number(volume.name)) continue;
    if (const auto other = others.find(volume.thin_id); other != others.end()) {
      // Two mounts of it would destroy each other's file system.
      spdlog::error(
          "volume {0} is left inactive: /dev/mapper/{1} is the same thin device, and not ours; "
          "remove that one (dmsetup remove {1}) and start the daemon again",
          volume.name, other->second);
      continue;
    }
    attempt("volume " + volume.name, [&] { activate(volume); });
  }
}

void Volumes::restore_mount(const VolumeRow& volume) {
  const std::vector<Mount> mounts = mounts_.mounts();
  const std::filesystem::path present = mounted_at(volume, mounts);
  const std::vector<VolumeUser> users = catalog_.users(volume.uuid);
  if (!present.empty()) {
    // Ours has a user from before it is mounted until after it is unmounted.
    if (users.empty())
      spdlog::warn("volume {} is mounted at {}, not by us", volume.name, present.native());
    return;
  }
  bool wanted = false;
  for (const VolumeUser& user : users) {
    wanted = wanted || user.kind == VolumeUser::Kind::kCommand;
    // Its mount is gone, so the container is too.
    if (user.kind == VolumeUser::Kind::kDocker)
      catalog_.remove_user(volume.uuid, user.kind, user.id);
  }
  if (wanted) {
    const std::filesystem::path target = mounts_.canonical(volume.mountpoint);
    check_mountpoint(volume, target, mounts);
    mount_now(volume, target);
    spdlog::info("volume {} mounted again at {}", volume.name, target.native());
  } else if (!volume.mountpoint.empty()) {
    forget_mountpoint(volume, volume.mountpoint);
  }
}

}  // namespace convoy
