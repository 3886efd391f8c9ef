// Backups of this host's snapshots: what of a snapshot has to be read, told to the backup engine,
// and the volume that a restore fills.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "backup/backup_record.h"
#include "backup/backups.h"
#include "backup/collect_garbage.h"
#include "backup/create_backup.h"
#include "backup/destination.h"
#include "backup/source_ranges.h"
#include "backup/store.h"
#include "backup/verify_backup.h"
#include "base/error.h"
#include "base/time.h"
#include "catalog/catalog.h"
#include "daemon/jobs.h"
#include "volumes/volumes.h"

namespace convoy {

// A destination, or a backup in one, as the user named it.
struct StoreAddress {
  std::string url;
  std::string s3_endpoint = {};  // empty: what the settings say
};

// Thread-safe. URLs that are none throw kInvalidArgument.
class Backups {
 public:
  Backups(Catalog& catalog, Volumes& volumes, S3Setup s3)
      : catalog_(catalog), volumes_(volumes), destinations_(std::move(s3)) {}

  struct Created {
    std::string url;
    bool incremental = false;  // only what differs from an earlier snapshot was looked at
    BackupStatistics statistics;
    std::uint64_t bytes_reused = 0;  // read, and there already
  };
  // Backs a snapshot up: what changed since the newest backup of its volume there whose snapshot is
  // still here, or, if there is none, all that is mapped.
  Created create(const std::string& snapshot, const StoreAddress& address,
                 const Compression& compression, Job& job);

  // Makes a volume of the backup's size with its content. Throws kInvalidArgument if another size
  // is asked for. After any failure there is no volume. Damage is one, unless it is allowed: then
  // what is lost is zero, and told in `lost`.
  enum class OnDamage { kFail, kAllow };
  struct Restored {
    VolumeView volume;
    std::vector<Damage> lost;
  };
  Restored restore(const NewVolume& request, const StoreAddress& address, OnDamage on_damage,
                   Job& job);

  // Makes an unmounted volume, of the same size, what it was in the backup. Only what differs is
  // fetched. After any failure, and any damage is one, the volume is what it was before, unless the
  // message says that it is restored. Throws kBusy if it is mounted or open.
  VolumeView restore_into(const std::string& volume, const StoreAddress& address, Job& job);

  struct DamagedPart {
    std::string url;
    std::optional<Damage> part;  // nothing: the backup's own JSON can't be read
    std::string reason;
  };
  struct Verified {
    std::size_t backups = 0;
    std::vector<DamagedPart> damaged;
    std::string not_noted;  // why what is broken could not be noted; empty if it was
  };
  // Verifies one backup, or all that are in a destination. What is broken is noted in the store, so
  // that no later backup builds on it.
  Verified verify(const StoreAddress& address, VerifyDepth depth, Job& job);

  struct Listed {
    std::string url;
    BackupInfo info;
    // Its name, if Rancher Convoy made it: UUIDs and stored bytes mean nothing then.
    std::optional<std::string> convoy_name = std::nullopt;
  };
  struct List {
    std::vector<Listed> backups;  // each volume's by time
    std::vector<Error> damaged;   // one for each backup that can't be read
  };
  // Of all volumes if `volume_name` is empty; those of Rancher Convoy, too.
  List list(const StoreAddress& address, const std::string& volume_name);
  Listed inspect(const StoreAddress& address);

  struct Collected {
    struct Pack {
      Uuid lineage;
      CollectedPack pack;
    };
    std::vector<Pack> packs;
    std::vector<std::string> notes;     // why packs were not rewritten
    std::vector<std::string> failures;  // of volumes of which nothing could be freed
  };
  // Frees what nobody needs in a destination, or tells what would be freed.
  Collected collect_garbage(const StoreAddress& address, CollectionMode mode, Job& job);

  struct Unlocked {
    std::string url;
    Timestamp renewed;
  };
  // Takes the leases of all who are writing backups there, or have died at it. Their backups can't
  // be completed any more.
  std::vector<Unlocked> unlock(const StoreAddress& address);

  // Throws kBusy if a restore of this daemon reads it, kUnsupported if Rancher Convoy made it.
  void remove(const StoreAddress& address, Job& job);

  // What is no job and waits for a server ends soon; what is begun later is tried once.
  void stop() { stopping_.request_stop(); }

 private:
  struct OpenStore {
    std::unique_ptr<ObjectStore> objects;
    Store store;
  };
  OpenStore open_store(const Destination& destination, const StoreAddress& address,
                       std::stop_token stop);
  BackupList list_ours(const Destinations::Opened& opened, const Destination& destination,
                       const std::optional<std::string>& volume_name);

  // What a new backup is built on and what of the device it reads.
  struct Base {
    std::optional<Uuid> parent;
    std::vector<SourceRange> ranges;
    bool incremental = false;
  };
  // Writes a backup to an empty device. Without a sink, damage is thrown.
  using WriteBackup = std::function<void(int device_fd, const DamageSink& damaged)>;
  Restored fill_new_volume(const NewVolume& request, const BackedUpVolume& source,
                           OnDamage on_damage, const WriteBackup& write);
  // Whether the store is asked if a backup that the catalog knows is there: else its writer finds
  // out, and the plan was in vain.
  enum class LookFirst { kNo, kYes };
  Base choose_base(const Store& store, const SnapshotRow& snapshot, const VolumeRow& volume,
                   LookFirst look);
  std::optional<Base> incremental_base(const Store& store, const SnapshotRow& snapshot,
                                       const VolumeRow& volume, LookFirst look);

  std::optional<Uuid> parent_without_snapshot(const Store& store, const VolumeRow& volume);
  // Changes that hold for a parent of which parts are lost, too: all that is not mapped is zero.
  void add_unmapped(std::vector<SourceRange>& ranges, const SnapshotRow& snapshot);

  Catalog& catalog_;
  Volumes& volumes_;
  Destinations destinations_;
  std::stop_source stopping_;

  // While one lives, this daemon does not delete a backup that it restores, nor begin to restore
  // one that it deletes. Throw kBusy.
  class Mark;
  Mark being_restored(const Uuid& backup);
  Mark being_removed(const Uuid& backup);

  std::mutex lock_;
  std::multiset<Uuid> restoring_;
  std::multiset<Uuid> removing_;
};

}  // namespace convoy
