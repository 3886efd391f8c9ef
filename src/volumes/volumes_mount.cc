// Volumes: mounting, unmounting and who uses a mount.
#include <algorithm>
#include <thread>

#include <spdlog/spdlog.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/size.h"
#include "volumes/filesystem.h"
#include "volumes/volumes.h"

namespace convoy {
namespace {

std::string names_of_containers(const std::vector<VolumeUser>& users) {
  std::string names;
  for (const VolumeUser& user : users) {
    if (user.kind != VolumeUser::Kind::kDocker) continue;
    if (!names.empty()) names += ", ";
    names += user.id;
  }
  return names;
}

// For the log.
std::string describe(const VolumeUser& user) {
  return user.kind == VolumeUser::Kind::kCommand ? "the command line" : "mount id " + user.id;
}

}  // namespace

std::filesystem::path Volumes::default_mountpoint(const VolumeRow& volume) const {
  return mounts_.canonical(options_.default_mounts / volume.name);
}

std::filesystem::path Volumes::mounted_at(const VolumeRow& volume,
                                          const std::vector<Mount>& mounts) {
  const std::optional<dev_t> device = pool_.device_number(volume.name);
  std::filesystem::path first;
  for (const Mount& mount : mounts) {
    if (mount.device != device || mount.root != "/") continue;
    if (mount.target == volume.mountpoint) return mount.target;
    if (first.empty()) first = mount.target;
  }
  return first;
}

std::filesystem::path Volumes::mount(std::string_view reference,
                                     const std::filesystem::path& target, VolumeUser::Kind kind,
                                     const std::string& id) {
  const auto [volume, lock] = lock_volume(reference);
  if (!target.empty() && !target.is_absolute()) {
    throw Error(ErrorKind::kInvalidArgument, "the mount point '{}' is not an absolute path",
                target.native());
  }
  const VolumeUser user{kind, id, boot_id_};
  const std::vector<Mount> mounts = mounts_.mounts();
  const std::filesystem::path present = mounted_at(volume, mounts);
  const std::filesystem::path chosen =
      target.empty() ? default_mountpoint(volume) : mounts_.canonical(target);
  if (!present.empty()) {
    if (!target.empty() && chosen != present) {
      throw Error(ErrorKind::kBusy, "volume '{}' is mounted already, at {}", volume.name,
                  present.native());
    }
    catalog_.add_user(volume.uuid, user, present);
    spdlog::info("volume {} at {} is used by {}, too", volume.name, present.native(),
                 describe(user));
    return present;
  }
  check_mountpoint(volume, chosen, mounts);

  // The user first: a mount that nobody is recorded for would be left over by a crash.
  const std::vector<VolumeUser> before = catalog_.users(volume.uuid);
  catalog_.add_user(volume.uuid, user, chosen);
  try {
    mount_now(volume, chosen);
  } catch (...) {
    if (before.empty()) {
      catalog_.remove_user(volume.uuid, kind, id);
      forget_mountpoint(volume, chosen);
    } else {  // somebody has taken their mount away; they are as they were
      if (std::ranges::none_of(before, [&](const VolumeUser& other) {
            return other.kind == kind && other.id == id;
          })) {
        catalog_.remove_user(volume.uuid, kind, id);
      }
      catalog_.add_user(volume.uuid, before.front(), volume.mountpoint);
    }
    throw;
  }
  spdlog::info("volume {} mounted at {} for {}", volume.name, chosen.native(), describe(user));
  return chosen;
}

void Volumes::check_mountpoint(const VolumeRow& volume, const std::filesystem::path& target,
                               const std::vector<Mount>& mounts) {
  if (std::ranges::any_of(mounts, [&](const Mount& mount) { return mount.target == target; })) {
    throw Error(ErrorKind::kBusy, "something else is mounted at {}; choose another mount point",
                target.native());
  }
  if (target != default_mountpoint(volume) && !mounts_.is_directory(target)) {
    throw Error(ErrorKind::kInvalidArgument,
                "the mount point {} is not an existing directory; make it first", target.native());
  }
}

void Volumes::mount_now(const VolumeRow& volume, const std::filesystem::path& target) {
  require_active(volume);
  if (target == default_mountpoint(volume)) mounts_.make_directories(target);
  mounts_.mount(pool_.device_path(volume.name), target, volume.filesystem,
                mount_options(volume.filesystem, volume.mount_options));
}

void Volumes::unmount(std::string_view reference, VolumeUser::Kind kind, const std::string& id) {
  const auto [volume, lock] = lock_volume(reference);
  std::vector<VolumeUser> others = catalog_.users(volume.uuid);
  std::erase_if(others, [&](const VolumeUser& user) { return user.kind == kind && user.id == id; });
  const std::filesystem::path mountpoint = mounted_at(volume, mounts_.mounts());

  if (others.empty()) {
    // What was taken over from Convoy may be written with symbolic links.
    if (mountpoint == volume.mountpoint || mountpoint == mounts_.canonical(volume.mountpoint)) {
      if (!mountpoint.empty()) unmount_now(volume, mountpoint);
    } else if (kind == VolumeUser::Kind::kCommand && !mountpoint.empty()) {
      throw Error(ErrorKind::kBusy,
                  "volume '{}' is mounted at {}, but not by convoy: unmount it with umount(8), or "
                  "with --force",
                  volume.name, mountpoint.native());
    }
    catalog_.remove_user(volume.uuid, kind, id);
    if (!volume.mountpoint.empty()) forget_mountpoint(volume, volume.mountpoint);
    return;
  }
  catalog_.remove_user(volume.uuid, kind, id);
  spdlog::info("volume {} is no longer used by {}, but by others", volume.name,
               describe({kind, id, boot_id_}));
  if (kind == VolumeUser::Kind::kCommand && !mountpoint.empty()) {
    throw Error(ErrorKind::kBusy,
                "volume '{}' stays mounted at {}: containers use it, by the mount ids {}",
                volume.name, mountpoint.native(), names_of_containers(others));
  }
}

void Volumes::force_unmount(std::string_view reference) {
  const auto [volume, lock] = lock_volume(reference);
  const std::filesystem::path mountpoint = mounted_at(volume, mounts_.mounts());
  if (!mountpoint.empty()) unmount_now(volume, mountpoint);
  for (const VolumeUser& user : catalog_.users(volume.uuid)) {
    if (user.kind == VolumeUser::Kind::kDocker)
      spdlog::warn("volume {}: the use by {} is ended by force", volume.name, describe(user));
  }
  catalog_.remove_users(volume.uuid);
  // A catalog that was lost may have known of a mount at the default place.
  const std::filesystem::path& known = volume.mountpoint.empty() ? mountpoint : volume.mountpoint;
  if (!known.empty()) forget_mountpoint(volume, known);
}

std::uint64_t Volumes::trim(std::string_view reference,
                            const std::function<void(std::uint64_t)>& progress) {
  const VolumeRow volume = catalog_.find_volume(reference);
  const std::uint64_t least = least_trim(pool_.device_path(volume.name));
  const std::uint64_t step = std::max(kTrimStep / least * least, least);
  std::uint64_t trimmed = 0;
  for (std::uint64_t begin = 0; begin < volume.size; begin += step) {
    const std::uint64_t end = std::min(begin + step, volume.size);
    trimmed += trim_step(volume.uuid, begin, end);
    progress(end);
    // A mutex is not fair: whoever waits for the volume gets it now.
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  spdlog::info("volume {} trimmed: {} of it are free", volume.name, format_size(trimmed));
  return trimmed;
}

std::uint64_t Volumes::trim_step(const Uuid& uuid, std::uint64_t begin, std::uint64_t end) {
  // The mount is open only under the lock, so no unmount finds it busy because of us.
  const auto [volume, lock] = lock_volume(uuid.to_string());
  const std::filesystem::path mountpoint = mounted_at(volume, mounts_.mounts());
  const std::optional<dev_t> device = pool_.device_number(volume.name);
  if (mountpoint.empty() || !device) {
    throw Error(ErrorKind::kInvalidArgument, "volume '{}' is not mounted{}", volume.name,
                begin == 0 ? "; mount it first" : " any more");
  }
  return mounts_.trim(mountpoint, *device, begin, end);
}

void Volumes::unmount_now(const VolumeRow& volume, const std::filesystem::path& target) {
  // The last one that is mounted there is the one that umount takes.
  std::optional<dev_t> top;
  for (const Mount& mount : mounts_.mounts()) {
    if (mount.target == target) top = mount.device;
  }
  if (top != pool_.device_number(volume.name)) {
    throw Error(ErrorKind::kBusy,
                "something else is mounted over volume '{}' at {}; unmount that first", volume.name,
                target.native());
  }
  const auto lock = write_back_locks_.lock(volume.uuid);
  for (auto waited = std::chrono::milliseconds(0);; waited += kBusyRetryStep) {
    try {
      mounts_.unmount(target);
      require_unmounted(volume, target);
      spdlog::info("volume {} unmounted from {}", volume.name, target.native());
      return;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kBusy || waited >= kBusyRetryLimit) throw;
    }
    std::this_thread::sleep_for(kBusyRetryStep);
  }
}

// A path leads elsewhere if something was mounted over a directory above.
void Volumes::require_unmounted(const VolumeRow& volume, const std::filesystem::path& target) {
  const std::optional<dev_t> device = pool_.device_number(volume.name);
  for (const Mount& mount : mounts_.mounts()) {
    if (mount.target != target || mount.device != device) continue;
    throw Error(ErrorKind::kUnavailable,
                "volume '{}' is still mounted at {}, where that path does not lead: something else "
                "is mounted over a directory above; unmount that first",
                volume.name, target.native());
  }
}

void Volumes::forget_mountpoint(const VolumeRow& volume, const std::filesystem::path& target) {
  // In this order: of a directory that the catalog doesn't know, nobody would.
  remove_default_mountpoint(volume, target);
  catalog_.clear_mountpoint(volume.uuid);
}

void Volumes::remove_default_mountpoint(const VolumeRow& volume,
                                        const std::filesystem::path& target) {
  if (target != default_mountpoint(volume)) return;
  try {
    mounts_.remove_directory(target);
  } catch (const Error& error) {
    spdlog::warn("volume {}: {}", volume.name, error.message());
  }
}

}  // namespace convoy
