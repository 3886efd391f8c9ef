// The life of volumes and snapshots: catalog, pool and file systems kept in step.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "catalog/catalog.h"
#include "devmapper/thin_pool.h"
#include "sys/mount_namespace.h"
#include "thinmeta/metadata.h"
#include "volumes/object_locks.h"
#include "volumes/pool_transactions.h"
#include "volumes/snapshot_readers.h"

namespace convoy {

// A volume as users see it.
struct VolumeView {
  VolumeRow volume;
  std::filesystem::path device;
  std::filesystem::path mountpoint;  // what the kernel says; empty if it isn't mounted
  std::vector<SnapshotRow> snapshots;
};

// What may be said of a volume that is to be made; what is left out is the pool's default, or the
// backup's.
struct NewVolume {
  std::string name;
  std::optional<std::uint64_t> size;
  std::optional<std::string> filesystem;
  std::optional<std::string> mkfs_options;   // more words for mkfs
  std::optional<std::string> mount_options;  // as mount(8) takes them after -o
};

// What a volume that is restored has from its backup.
struct BackedUpVolume {
  Uuid backup;
  Uuid lineage;
  std::uint64_t size = 0;
  std::string filesystem;
};

struct VolumesOptions {
  std::filesystem::path default_mounts;  // the directory under which volumes are mounted by default
  std::chrono::milliseconds command_timeout;
};

// Thread-safe. Work on one volume is done one at a time; work on different volumes goes on side by
// side. References name a volume or snapshot as Catalog::find_volume says; unknown ones throw
// kNotFound.
class Volumes {
 public:
  Volumes(Catalog& catalog, ThinPool& pool, MountNamespace mounts, VolumesOptions options);

  // Once, at start, before anything else: brings pool, catalog and mounts together again after
  // whatever happened. Resumes what is suspended, finishes or undoes what was begun, makes every
  // volume's device, and mounts what the command line had mounted. A volume that can't be activated
  // or mounted is logged and does not keep the others from it. Throws if the pool and the catalog
  // don't belong together.
  void recover();

  // Makes a volume with an empty file system. Throws kInvalidArgument (name, size, options),
  // kAlreadyExists, what the pool or mkfs failed with, or kCancelled when a stop is requested; then
  // there is no volume.
  VolumeView create(const NewVolume& request, const std::stop_token& stop = {});

  // A volume that exists for nobody else until it is committed, for a restore to write to.
  class Construction;
  Construction begin_restore(const NewVolume& request, const BackedUpVolume& source);

  // A copy of a volume that takes its place when it is committed, for a restore onto what is there.
  // Throws kBusy if the volume is mounted, or is being replaced already. Until the replacement
  // ends, nothing else can be done with the volume, but to look at it: kBusy, naming `job`. Throws
  // kInvalidArgument if the volume has another size than the backup's.
  class Replacement;
  Replacement begin_replacement(std::string_view reference, const BackedUpVolume& source,
                                const std::string& job);

  // Deletes it with its snapshots. Throws kBusy if it is mounted, open, or a snapshot of it is
  // being read.
  void remove(std::string_view reference);

  VolumeView inspect(std::string_view reference);
  // How many bytes of the pool it maps, those that snapshots share included; nothing if it isn't
  // active, or if the pool's metadata are being changed for longer than kStatusPatience.
  std::optional<std::uint64_t> used_bytes(const VolumeRow& volume);
  std::vector<VolumeView> list();

  // Mounts it for `kind` and `id`, at the directory `target`, or, if that is empty, at the default
  // place, which is made. A volume that is mounted
  // already just gets one more user, if `target` is empty or where it is; else throws kBusy.
  // Returns where it is mounted.
  std::filesystem::path mount(std::string_view reference, const std::filesystem::path& target,
                              VolumeUser::Kind kind, const std::string& id);
  // Ends this user's use; the last one's end unmounts it. Ending a use that there isn't is no
  // error. Throws kBusy while processes use files in it, or if the command line would unmount under
  // Docker's containers, or a mount that we didn't make.
  void unmount(std::string_view reference, VolumeUser::Kind kind, const std::string& id);

  // Unmounts it, whoever mounted it, and ends all uses. Throws kBusy while processes use files in
  // it; then nothing has changed.
  void force_unmount(std::string_view reference);

  // Gives the blocks of a mounted volume that its file system doesn't use back to the pool, as far
  // as no snapshot shares them. `progress` is told how many of the volume's bytes are looked
  // through, and may throw to end it. Returns how many free bytes the file system told of.
  std::uint64_t trim(std::string_view reference,
                     const std::function<void(std::uint64_t)>& progress);

  // A crash-consistent snapshot; a mounted volume's writers wait for a moment. An empty name:
  // "snapshot-" and 16 hex digits.
  SnapshotRow create_snapshot(std::string_view reference, std::string name);
  void remove_snapshot(std::string_view reference);
  SnapshotRow inspect_snapshot(std::string_view reference);

  // Opens it for reading; it can't be deleted meanwhile. `job` says who reads, to those who would
  // delete it.
  SnapshotReader read_snapshot(std::string_view reference, const std::string& job);
  // As SnapshotReaders::changed_ranges.
  std::optional<std::vector<ChangedRange>> changed_ranges(const std::optional<Uuid>& base,
                                                          const Uuid& snapshot) {
    return readers_.changed_ranges(base, snapshot);
  }

  PoolRow pool();
  PoolStatus pool_status() { return pool_.status(); }
  // Nothing if a step of the pool takes longer than kStatusPatience.
  std::optional<PoolStatus> pool_status_now();
  // Takes the whole of the pool's devices into use, which have become larger. Users of volumes wait
  // for a moment. Throws kInvalidArgument if neither has, or one has become smaller; kBusy if a
  // step of the pool takes long.
  void grow_pool();
  const std::filesystem::path& default_mounts() const { return options_.default_mounts; }

 private:
  struct Locked {
    VolumeRow volume;
    ObjectLocks::Lock lock;
  };
  // Throws kBusy if the volume is being replaced.
  Locked lock_volume(std::string_view reference);
  void check_not_mounted(const VolumeRow& volume);
  // Throws kBusy if somebody else has one of these thin devices active: it could not be deleted.
  void check_not_active_elsewhere(const VolumeRow& volume,
                                  const std::vector<SnapshotRow>& snapshots);

  VolumeRow make_device(VolumeRow volume);
  void activate(const DeviceRow& volume);
  // Throws kUnavailable unless /dev/mapper/NAME is the volume: another's device may have the name.
  void require_active(const VolumeRow& volume);
  void make_filesystem(const VolumeRow& volume, const std::stop_token& stop);
  // Takes an inactive volume out of the pool and the catalog, snapshots first.
  void destroy(const VolumeRow& volume);
  // Undoes a create that failed; what can't be undone now is logged and left to the next start.
  void abandon(const VolumeRow& volume) noexcept;

  VolumeView view(const VolumeRow& volume, const std::vector<Mount>& mounts,
                  std::vector<SnapshotRow> snapshots);
  // Where the kernel has it mounted: where we mounted it, if that is among several places; empty if
  // nowhere.
  std::filesystem::path mounted_at(const VolumeRow& volume, const std::vector<Mount>& mounts);
  std::filesystem::path default_mountpoint(const VolumeRow& volume) const;
  // Throws kBusy or kInvalidArgument unless `target` can be mounted on; the default place is made.
  void check_mountpoint(const VolumeRow& volume, const std::filesystem::path& target,
                        const std::vector<Mount>& mounts);
  void mount_now(const VolumeRow& volume, const std::filesystem::path& target);
  std::uint64_t trim_step(const Uuid& uuid, std::uint64_t begin, std::uint64_t end);
  void write_back(std::string_view reference);
  void unmount_now(const VolumeRow& volume, const std::filesystem::path& target);
  void require_unmounted(const VolumeRow& volume, const std::filesystem::path& target);
  void forget_mountpoint(const VolumeRow& volume, const std::filesystem::path& target);
  void remove_default_mountpoint(const VolumeRow& volume, const std::filesystem::path& target);

  void remove_strays();
  void settle_pool();
  void remove_unfinished();
  void activate_all();
  void restore_mount(const VolumeRow& volume);

  Catalog& catalog_;
  ThinPool& pool_;
  MountNamespace mounts_;
  VolumesOptions options_;
  std::string pool_name_;
  std::string boot_id_;
  PoolTransactions transactions_;
  SnapshotReaders readers_;
  ObjectLocks volume_locks_;
  ObjectLocks write_back_locks_;  // taken under the volume's, if both are

  std::mutex replaced_mutex_;             // of the one below
  std::map<Uuid, std::string> replaced_;  // volumes, and the jobs that replace them
};

class Volumes::Construction {
 public:
  Construction(Volumes& volumes, VolumeRow volume)
      : volumes_(&volumes), volume_(std::move(volume)) {}
  Construction(Construction&& other) noexcept
      : volumes_(std::exchange(other.volumes_, nullptr)), volume_(std::move(other.volume_)) {}
  Construction& operator=(Construction&&) = delete;
  Construction(const Construction&) = delete;
  Construction& operator=(const Construction&) = delete;
  // Not committed: removes the volume. What can't be removed is logged, and removed at the next
  // start.
  ~Construction();

  std::filesystem::path device() const;
  // Makes it a volume like any other.
  VolumeView commit();

 private:
  Volumes* volumes_;
  VolumeRow volume_;
};

class Volumes::Replacement {
 public:
  Replacement(Volumes& volumes, VolumeRow volume, VolumeRow copy, Uuid backup)
      : volumes_(&volumes), volume_(std::move(volume)), copy_(std::move(copy)), backup_(backup) {}
  Replacement(Replacement&& other) noexcept
      : volumes_(std::exchange(other.volumes_, nullptr)),
        volume_(std::move(other.volume_)),
        copy_(std::move(other.copy_)),
        backup_(other.backup_) {}
  Replacement& operator=(Replacement&&) = delete;
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;
  // Not committed: removes the copy, and the volume is what it was.
  ~Replacement();

  std::filesystem::path device() const;
  // Puts the copy, which must be synced, in the volume's place, and deletes what that was. A crash
  // leaves the one or the other. Throws kBusy if somebody has the volume open; it is what it was
  // then. Throws, with a message that says so, if it is exchanged but can't be made active.
  VolumeView commit();

 private:
  Volumes* volumes_;
  VolumeRow volume_;
  VolumeRow copy_;
  Uuid backup_;
};

}  // namespace convoy
