// The catalog's volumes and snapshots, and the change of the pool that is under way.
#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/limits.h"
#include "catalog/access.h"
#include "catalog/catalog.h"

namespace convoy {
namespace {

constexpr const char* kVolumeQuery =
    "SELECT d.uuid, d.name, d.state, d.thin_id, d.size, d.created, v.filesystem, v.lineage, "
    "v.mountpoint, v.mkfs_options, v.mount_options, v.backup"
    "  FROM device d JOIN volume v ON v.uuid = d.uuid";
constexpr const char* kSnapshotQuery =
    "SELECT d.uuid, d.name, d.state, d.thin_id, d.size, d.created, s.volume, s.transaction_id, "
    "s.creation_time"
    "  FROM device d JOIN snapshot s ON s.uuid = d.uuid";

constexpr std::array<std::pair<DeviceState, const char*>, 3> kStates = {{
    {DeviceState::kCreating, "creating"},
    {DeviceState::kReady, "ready"},
    {DeviceState::kDeleting, "deleting"},
}};

const char* to_text(DeviceState state) {
  for (const auto& [value, text] : kStates) {
    if (value == state) return text;
  }
  return "";
}

DeviceState parse_state(const std::string& text) {
  for (const auto& [value, name] : kStates) {
    if (text == name) return value;
  }
  throw Error(ErrorKind::kCorrupt, "the catalog has a device in the unknown state '{}'", text);
}

void read_device(SQLite::Statement& row, DeviceRow& device) {
  device.uuid = uuid_at(row, 0);
  device.name = row.getColumn(1).getString();
  device.state = parse_state(row.getColumn(2).getString());
  device.thin_id = row.getColumn(3).getUInt();
  device.size = unsigned_at(row, 4);
  device.created = Timestamp(std::chrono::milliseconds(row.getColumn(5).getInt64()));
}

VolumeRow read_volume(SQLite::Statement& row) {
  VolumeRow volume;
  read_device(row, volume);
  volume.filesystem = row.getColumn(6).getString();
  volume.lineage = uuid_at(row, 7);
  volume.mountpoint = row.getColumn(8).getString();
  volume.mkfs_options = row.getColumn(9).getString();
  volume.mount_options = row.getColumn(10).getString();
  if (!row.isColumnNull(11)) volume.backup = uuid_at(row, 11);
  return volume;
}

SnapshotRow read_snapshot(SQLite::Statement& row) {
  SnapshotRow snapshot;
  read_device(row, snapshot);
  snapshot.volume = uuid_at(row, 6);
  snapshot.transaction_id = unsigned_at(row, 7);
  if (!row.isColumnNull(8)) snapshot.creation_time = row.getColumn(8).getUInt();
  return snapshot;
}

bool could_be_uuid_prefix(std::string_view text) {
  return text.size() >= kMinUuidPrefixLength && text.size() <= 36 &&
         text.find_first_not_of("0123456789abcdefABCDEF-") == std::string_view::npos;
}

// `find` looks up by a condition on the device row `d`.
template <typename Row, typename Find>
Row find_by_reference(const char* kind, std::string_view reference, Find&& find) {
  std::vector<Row> found = find("d.name = ?", std::string(reference));
  if (found.empty() && could_be_uuid_prefix(reference)) {
    std::string prefix(reference);
    std::ranges::transform(prefix, prefix.begin(), [](unsigned char c) { return std::tolower(c); });
    // A range of the index; LIKE would look at each device. 'g' comes after all that a UUID holds.
    found = find("d.uuid >= ?1 AND d.uuid < ?1 || 'g'", prefix);
  }
  if (found.empty()) throw Error(ErrorKind::kNotFound, "there is no {} '{}'", kind, reference);
  if (found.size() > 1) {
    throw Error(ErrorKind::kInvalidArgument,
                "'{}' is the start of the UUIDs of {} {}s; give more of it", reference,
                found.size(), kind);
  }
  return found.front();
}

}  // namespace

std::vector<VolumeRow> Catalog::volumes() {
  return guarded([&] {
    Access access(*this);
    return read_all(access.query(fmt::format("{} ORDER BY d.name", kVolumeQuery)), read_volume);
  });
}

std::vector<SnapshotRow> Catalog::snapshots() {
  return guarded([&] {
    Access access(*this);
    return read_all(access.query(fmt::format("{} ORDER BY d.name", kSnapshotQuery)), read_snapshot);
  });
}

std::vector<SnapshotRow> Catalog::snapshots_of(const Uuid& volume) {
  return guarded([&] {
    Access access(*this);
    return read_all(
        access.query(fmt::format("{} WHERE s.volume = ? ORDER BY d.name", kSnapshotQuery), volume),
        read_snapshot);
  });
}

std::optional<VolumeRow> Catalog::volume(const Uuid& uuid) {
  return guarded([&] {
    Access access(*this);
    return read_one(access.query(fmt::format("{} WHERE d.uuid = ?", kVolumeQuery), uuid),
                    read_volume);
  });
}

std::optional<SnapshotRow> Catalog::snapshot(const Uuid& uuid) {
  return guarded([&] {
    Access access(*this);
    return read_one(access.query(fmt::format("{} WHERE d.uuid = ?", kSnapshotQuery), uuid),
                    read_snapshot);
  });
}

VolumeRow Catalog::find_volume(std::string_view reference) {
  return guarded([&] {
    Access access(*this);
    return find_by_reference<VolumeRow>(
        "volume", reference, [&](const char* condition, const std::string& value) {
          return read_all(
              access.query(
                  fmt::format("{} WHERE d.state = 'ready' AND {}", kVolumeQuery, condition), value),
              read_volume);
        });
  });
}

SnapshotRow Catalog::find_snapshot(std::string_view reference) {
  return guarded([&] {
    Access access(*this);
    return find_by_reference<SnapshotRow>(
        "snapshot", reference, [&](const char* condition, const std::string& value) {
          return read_all(access.query(fmt::format("{} WHERE d.state = 'ready' AND {}",
                                                   kSnapshotQuery, condition),
                                       value),
                          read_snapshot);
        });
  });
}

std::optional<DeviceState> Catalog::state_of_name(const std::string& name) {
  return guarded([&]() -> std::optional<DeviceState> {
    Access access(*this);
    SQLite::Statement row = access.query("SELECT state FROM device WHERE name = ?", name);
    if (!row.executeStep()) return std::nullopt;
    return parse_state(row.getColumn(0).getString());
  });
}

namespace {

std::string_view presence(DeviceState state) {
  switch (state) {
    case DeviceState::kCreating:
      return "is being created";
    case DeviceState::kDeleting:
      return "is still being deleted";
    case DeviceState::kReady:
      break;
  }
  return "exists already";
}

template <typename Database>
void check_name_is_free(Database& access, const std::string& name) {
  SQLite::Statement row = access.query("SELECT kind, state FROM device WHERE name = ?", name);
  if (!row.executeStep()) return;
  const std::string kind = row.getColumn(0).getString();
  const DeviceState state = parse_state(row.getColumn(1).getString());
  throw Error(ErrorKind::kAlreadyExists, "a {} named '{}' {}", kind, name, presence(state));
}

// A thin id that no row has. They are given out in turn, so that one is used again as late as
// possible.
template <typename Database>
std::uint32_t take_thin_id(Database& access) {
  SQLite::Statement row = access.query("SELECT next_thin_id FROM pool");
  if (!row.executeStep()) throw Error(ErrorKind::kInternal, "the catalog has no pool");
  std::uint32_t id = row.getColumn(0).getUInt();
  for (std::uint32_t tried = 0; tried <= kMaxThinId; ++tried, ++id) {
    if (id > kMaxThinId) id = 1;
    if (access.query("SELECT 1 FROM device WHERE thin_id = ?", id).executeStep()) continue;
    access.execute("UPDATE pool SET next_thin_id = ?", id + 1);
    return id;
  }
  throw Error(ErrorKind::kNoSpace, "all {} thin ids of the pool are in use", kMaxThinId);
}

template <typename Database>
void insert_device(Database& access, const DeviceRow& device, const char* kind) {
  access.execute(
      "INSERT INTO device (uuid, name, kind, state, thin_id, size, created) VALUES (?, ?, ?, ?, ?, "
      "?, ?)",
      device.uuid, device.name, kind, to_text(device.state), device.thin_id, device.size,
      static_cast<std::uint64_t>(device.created.time_since_epoch().count()));
}

template <typename Database>
void insert_volume(Database& access, const VolumeRow& volume) {
  insert_device(access, volume, "volume");
  access.execute(
      "INSERT INTO volume (uuid, filesystem, lineage, mkfs_options, mount_options, backup) "
      "VALUES (?, ?, ?, ?, ?, ?)",
      volume.uuid, volume.filesystem, volume.lineage, volume.mkfs_options, volume.mount_options,
      volume.backup);
}

template <typename Database>
void insert_intent(Database& access, const char* action, const Uuid& device) {
  access.execute(
      "INSERT INTO intent (id, action, device, transaction_id) SELECT 1, ?, ?, transaction_id FROM "
      "pool",
      action, device);
}

}  // namespace

VolumeRow Catalog::begin_create(VolumeRow volume) {
  return guarded([&] {
    Access access(*this);
    check_name_is_free(access, volume.name);
    volume.state = DeviceState::kCreating;
    volume.thin_id = take_thin_id(access);
    insert_volume(access, volume);
    insert_intent(access, "create", volume.uuid);
    access.commit();
    return volume;
  });
}

SnapshotRow Catalog::begin_create(SnapshotRow snapshot) {
  return guarded([&] {
    Access access(*this);
    check_name_is_free(access, snapshot.name);
    snapshot.state = DeviceState::kCreating;
    snapshot.thin_id = take_thin_id(access);
    insert_device(access, snapshot, "snapshot");
    // dm-thin-metadata.c, __open_device: a new device's details take the pool's transaction id as
    // it is at that moment.
    access.execute(
        "INSERT INTO snapshot (uuid, volume, transaction_id) SELECT ?, ?, transaction_id FROM pool",
        snapshot.uuid, snapshot.volume);
    insert_intent(access, "create", snapshot.uuid);
    access.commit();
    return snapshot;
  });
}

void Catalog::begin_delete(const Uuid& device) {
  guarded([&] {
    Access access(*this);
    insert_intent(access, "delete", device);
    access.commit();
  });
}

void Catalog::replace_devices(const std::vector<VolumeEntry>& volumes, std::uint32_t next_thin_id) {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM intent");
    access.execute("CREATE TEMP TABLE kept AS SELECT backup, store, snapshot FROM backup");
    access.execute("DELETE FROM snapshot");
    access.execute("DELETE FROM device");
    for (const auto& [volume, snapshots, users] : volumes) {
      insert_volume(access, volume);
      for (const SnapshotRow& snapshot : snapshots) {
        insert_device(access, snapshot, "snapshot");
        access.execute(
            "INSERT INTO snapshot (uuid, volume, transaction_id, creation_time) VALUES (?, ?, ?, "
            "?)",
            snapshot.uuid, snapshot.volume, snapshot.transaction_id, snapshot.creation_time);
      }
      for (const VolumeUser& user : users)
        insert_user(access, volume.uuid, user, volume.mountpoint);
      if (users.empty() && !volume.mountpoint.empty()) {
        access.execute("UPDATE volume SET mountpoint = ? WHERE uuid = ?", volume.mountpoint,
                       volume.uuid);
      }
    }
    access.execute(
        "INSERT INTO backup (backup, store, snapshot)"
        " SELECT backup, store, snapshot FROM kept WHERE snapshot IN (SELECT uuid FROM snapshot)");
    access.execute("DROP TABLE kept");
    access.execute("UPDATE pool SET next_thin_id = ?", next_thin_id);
    access.commit();
  });
}

std::optional<Intent> Catalog::intent() {
  return guarded([&]() -> std::optional<Intent> {
    Access access(*this);
    SQLite::Statement row = access.query(
        "SELECT i.action, i.device, d.thin_id, i.transaction_id FROM intent i JOIN device d ON "
        "d.uuid = i.device");
    if (!row.executeStep()) return std::nullopt;
    Intent intent;
    intent.action = row.getColumn(0).getString() == "create" ? Intent::Action::kCreate
                                                             : Intent::Action::kDelete;
    intent.device = uuid_at(row, 1);
    intent.thin_id = row.getColumn(2).getUInt();
    intent.transaction_id = unsigned_at(row, 3);
    return intent;
  });
}

void Catalog::finish_intent() {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET transaction_id = (SELECT transaction_id + 1 FROM intent)");
    SQLite::Statement done = access.query("DELETE FROM intent RETURNING action, device");
    if (done.executeStep()) {
      access.execute(done.getColumn(0).getString() == "delete"
                         ? "DELETE FROM device WHERE uuid = ?"
                         : "UPDATE device SET state = 'ready' WHERE uuid = ? AND kind = 'snapshot'",
                     done.getColumn(1).getString());
    }
    done.reset();
    access.commit();
  });
}

void Catalog::abandon_intent() {
  guarded([&] {
    Access access(*this);
    SQLite::Statement deleted = access.query("DELETE FROM intent RETURNING action, device");
    if (deleted.executeStep() && deleted.getColumn(0).getString() == "create") {
      access.execute("DELETE FROM device WHERE uuid = ?", deleted.getColumn(1).getString());
    }
    deleted.reset();
    access.commit();
  });
}

void Catalog::set_state(const Uuid& device, DeviceState state) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE device SET state = ? WHERE uuid = ?", to_text(state), device);
    access.commit();
  });
}

void Catalog::set_state_with_snapshots(const Uuid& volume, DeviceState state) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "UPDATE device SET state = ? WHERE uuid = ? OR uuid IN (SELECT uuid FROM snapshot WHERE "
        "volume = ?)",
        to_text(state), volume, volume);
    access.commit();
  });
}

void Catalog::exchange_thin_devices(const Uuid& volume, const Uuid& replacement,
                                    const Uuid& backup) {
  guarded([&] {
    Access access(*this);
    const auto thin_id_of = [&](const Uuid& device) {
      SQLite::Statement row = access.query("SELECT thin_id FROM device WHERE uuid = ?", device);
      if (!row.executeStep())
        throw Error(ErrorKind::kInternal, "the catalog has no device {}", device.to_string());
      return row.getColumn(0).getUInt();
    };
    const std::uint32_t old_id = thin_id_of(volume);
    const std::uint32_t new_id = thin_id_of(replacement);
    // No two rows may have one thin id, not even between two statements.
    access.execute("UPDATE device SET thin_id = -1, state = 'deleting' WHERE uuid = ?",
                   replacement);
    access.execute("UPDATE device SET thin_id = ? WHERE uuid = ?", new_id, volume);
    access.execute("UPDATE device SET thin_id = ? WHERE uuid = ?", old_id, replacement);
    access.execute("UPDATE volume SET backup = ? WHERE uuid = ?", backup, volume);
    // Later backups are to be built on this one: what it holds, and newer ones do not, would be
    // stored again.
    access.execute(
        "DELETE FROM backup WHERE backup > ?2"
        "  AND snapshot IN (SELECT uuid FROM snapshot WHERE volume = ?1)"
        "  AND store = (SELECT b.store FROM backup b JOIN snapshot s ON s.uuid = b.snapshot"
        "    JOIN device d ON d.uuid = s.uuid"
        "    WHERE b.backup = ?2 AND s.volume = ?1 AND d.state = 'ready')",
        volume, backup);
    access.commit();
  });
}

void Catalog::set_creation_time(const Uuid& snapshot, std::uint32_t creation_time) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE snapshot SET creation_time = ? WHERE uuid = ?", creation_time, snapshot);
    access.commit();
  });
}

}  // namespace convoy
