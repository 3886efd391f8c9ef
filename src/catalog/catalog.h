// The catalog: what this host knows, in an SQLite database under the root. It holds the only SQL of
// the project.
//
// Every method is one transaction, durable when it returns (synchronous=FULL). What the catalog
// says and what the pool holds are brought together by the intent: see volumes/pool_transactions.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/time.h"
#include "base/units.h"
#include "base/uuid.h"

namespace SQLite {
class Database;
class Statement;
}  // namespace SQLite

namespace convoy {

struct PoolRow {
  enum class State { kCreating, kReady };

  Uuid uuid;
  std::string name;
  State state = State::kCreating;
  std::filesystem::path data_device;
  std::uint64_t data_size = 0;
  std::filesystem::path metadata_device;
  std::uint64_t metadata_size = 0;
  Sectors block_size;
  std::uint64_t transaction_id = 0;
  std::uint64_t default_size = 0;
  std::string default_filesystem;
  unsigned low_watermark = kDefaultLowWatermark;  // percent
  bool queue_when_full = false;                   // else writes to a full pool fail
  bool labelled = true;                           // see volumes/pool_label.h
  // Its metadata snapshot that was taken last, whether or not it is still held: its block. 0: none
  // was (thinmeta/torn_hold.h).
  std::uint64_t metadata_snapshot = 0;
};

enum class DeviceState { kCreating, kReady, kDeleting };

// What volumes and snapshots have in common.
struct DeviceRow {
  Uuid uuid;
  std::string name;
  DeviceState state = DeviceState::kCreating;
  std::uint32_t thin_id = 0;
  std::uint64_t size = 0;
  Timestamp created;
};

struct VolumeRow : DeviceRow {
  std::string filesystem;
  Uuid lineage;
  std::filesystem::path mountpoint;  // empty: not mounted
  std::string mkfs_options;
  std::string mount_options;
  std::optional<Uuid> backup;  // that it was restored from
};

struct SnapshotRow : DeviceRow {
  Uuid volume;
  std::uint64_t transaction_id = 0;
  std::optional<std::uint32_t> creation_time;
};

struct Intent {
  enum class Action { kCreate, kDelete };

  Action action = Action::kCreate;
  Uuid device;
  std::uint32_t thin_id = 0;
  std::uint64_t transaction_id = 0;  // the pool's before the change
};

struct VolumeUser {
  enum class Kind { kCommand, kDocker };

  Kind kind = Kind::kCommand;
  std::string id;
  std::string boot_id;

  bool operator==(const VolumeUser&) const = default;
};

// A volume with all that belongs to it.
struct VolumeEntry {
  VolumeRow volume;
  std::vector<SnapshotRow> snapshots;
  std::vector<VolumeUser> users;
};

// Thread-safe. Throws kCorrupt if the database is damaged, or kIo, with SQLite's reason.
class Catalog {
 public:
  // Opens the database, making it if there is none. Throws kCorrupt if what is there is damaged, by
  // SQLite's own check, or none; kUnsupported if a newer version of convoy made it.
  explicit Catalog(const std::filesystem::path& file);
  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  // --- Pool ---
  std::optional<PoolRow> pool();
  void insert_pool(const PoolRow& pool);
  // Only for a pool that never came to be: nothing else may be in the catalog.
  void remove_pool();
  void set_pool_ready();
  // Records this row's devices, with their sizes.
  void set_pool_devices(const PoolRow& pool);
  // Records this row's settings: defaults of volumes, low water mark, behaviour when full.
  void set_pool_settings(const PoolRow& pool);
  // Records where the pool is, as against what was known.
  void set_pool_transaction(std::uint64_t transaction_id);
  void set_metadata_snapshot(std::uint64_t block);
  // Inserts all rows as they are given, in place of all volumes and snapshots there are, and of the
  // change that is under way. Which backups there are of a snapshot that stays is kept. Thin ids
  // are given out from `next_thin_id` on.
  void replace_devices(const std::vector<VolumeEntry>& volumes, std::uint32_t next_thin_id);

  // --- Volumes and snapshots ---
  std::vector<VolumeRow> volumes();
  std::vector<SnapshotRow> snapshots();
  std::vector<SnapshotRow> snapshots_of(const Uuid& volume);
  std::optional<VolumeRow> volume(const Uuid& uuid);
  std::optional<SnapshotRow> snapshot(const Uuid& uuid);
  // The ready volume (or snapshot) that `reference` names: by its name, its UUID or the start of
  // its UUID. Throws kNotFound, or kInvalidArgument if it is the start of several UUIDs. A name
  // goes before a UUID.
  VolumeRow find_volume(std::string_view reference);
  SnapshotRow find_snapshot(std::string_view reference);
  // The state of whatever has this name.
  std::optional<DeviceState> state_of_name(const std::string& name);

  // Insert the row in state kCreating, with a thin id that no other has and, for a snapshot, the
  // pool's present transaction id, and open the intent. Throws kAlreadyExists if the name is taken.
  // Returns the row as inserted.
  VolumeRow begin_create(VolumeRow volume);
  SnapshotRow begin_create(SnapshotRow snapshot);
  // The device's row must be in state kDeleting.
  void begin_delete(const Uuid& device);

  std::optional<Intent> intent();
  // The pool has made the step: its new transaction id is recorded. The row of a deleted device is
  // removed, a created snapshot is ready, and a created volume still needs its content.
  void finish_intent();
  // The pool has not made the step and what was begun is undone: removes the intent, and the row of
  // a device that was being created.
  void abandon_intent();

  void set_state(const Uuid& device, DeviceState state);
  // A volume with all its snapshots, at once.
  void set_state_with_snapshots(const Uuid& volume, DeviceState state);
  // Gives the volume the thin device of `replacement`, and that one the volume's, in state
  // kDeleting: all at once. The volume says that it was restored from `backup`; if the snapshot of
  // that is still here, newer backups of the volume in its store are forgotten.
  void exchange_thin_devices(const Uuid& volume, const Uuid& replacement, const Uuid& backup);
  void set_creation_time(const Uuid& snapshot, std::uint32_t creation_time);

  // --- Mounts ---
  std::vector<VolumeUser> users(const Uuid& volume);
  void add_user(const Uuid& volume, const VolumeUser& user,
                const std::filesystem::path& mountpoint);
  void remove_user(const Uuid& volume, VolumeUser::Kind kind, const std::string& id);
  void remove_users(const Uuid& volume);
  // Removes the Docker users of other boots than this one.
  void forget_users_before(const std::string& boot_id);
  void clear_mountpoint(const Uuid& volume);

  // --- Backups ---
  std::optional<Uuid> store_at(const std::string& url);
  void remember_store(const std::string& url, const Uuid& store);
  void add_backup(const Uuid& backup, const Uuid& store, const Uuid& snapshot);
  void forget_backup(const Uuid& backup);
  struct KnownBackup {
    Uuid backup;
    Uuid snapshot;
  };
  // The newest backup in `store` of a snapshot of `volume` that still exists here.
  std::optional<KnownBackup> newest_backup(const Uuid& store, const Uuid& volume);

 private:
  class Access;

  std::mutex lock_;
  std::unique_ptr<SQLite::Database> database_;
};

}  // namespace convoy
