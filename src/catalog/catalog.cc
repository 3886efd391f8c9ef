#include "catalog/catalog.h"

#include <array>
#include <utility>

#include <SQLiteCpp/SQLiteCpp.h>
#include <catalog_schema.h>

#include "base/error.h"
#include "base/limits.h"

namespace convoy {
namespace {

constexpr int kSchemaVersion = 1;

constexpr const char* kVolumeQuery =
    "SELECT d.uuid, d.name, d.state, d.thin_id, d.size, d.created, v.filesystem, v.lineage, "
    "v.mountpoint"
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

const char* to_text(VolumeUser::Kind kind) {
  return kind == VolumeUser::Kind::kCommand ? "command" : "docker";
}

// SQLite's integers are signed; none of ours needs the 64th bit.
std::uint64_t unsigned_at(SQLite::Statement& row, int column) {
  return static_cast<std::uint64_t>(row.getColumn(column).getInt64());
}

Uuid uuid_at(SQLite::Statement& row, int column) {
  const std::string text = row.getColumn(column).getString();
  const std::optional<Uuid> uuid = Uuid::parse(text);
  if (!uuid) throw Error(ErrorKind::kCorrupt, "the catalog has '{}' for a UUID", text);
  return *uuid;
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

void bind(SQLite::Statement& statement, int index, const std::string& value) {
  statement.bind(index, value);
}
void bind(SQLite::Statement& statement, int index, const char* value) {
  statement.bind(index, value);
}
void bind(SQLite::Statement& statement, int index, const Uuid& value) {
  statement.bind(index, value.to_string());
}
void bind(SQLite::Statement& statement, int index, const std::filesystem::path& value) {
  statement.bind(index, value.native());
}
void bind(SQLite::Statement& statement, int index, std::uint64_t value) {
  statement.bind(index, static_cast<std::int64_t>(value));
}
void bind(SQLite::Statement& statement, int index, std::uint32_t value) {
  statement.bind(index, value);
}

}  // namespace

// The database while this thread has it, in a transaction that is rolled back unless committed.
class Catalog::Access {
 public:
  explicit Access(Catalog& catalog)
      : lock_(catalog.lock_), database_(*catalog.database_), transaction_(database_) {}

  template <typename... Args>
  SQLite::Statement query(const std::string& sql, const Args&... args) {
    SQLite::Statement statement(database_, sql);
    [[maybe_unused]] int index = 0;
    (bind(statement, ++index, args), ...);
    return statement;
  }

  template <typename... Args>
  int execute(const std::string& sql, const Args&... args) {
    return query(sql, args...).exec();
  }

  void commit() { transaction_.commit(); }

 private:
  std::lock_guard<std::mutex> lock_;
  SQLite::Database& database_;
  SQLite::Transaction transaction_;
};

namespace {

// Runs `action`, with SQLite's exceptions made ours.
template <typename Action>
auto guarded(Action&& action) {
  try {
    return std::forward<Action>(action)();
  } catch (const SQLite::Exception& error) {
    const bool full = error.getErrorCode() == 13;  // SQLITE_FULL
    throw Error(full ? ErrorKind::kNoSpace : ErrorKind::kIo, "the catalog: {}", error.what());
  }
}

template <typename Row>
std::vector<Row> read_all(SQLite::Statement statement, Row (*read)(SQLite::Statement&)) {
  std::vector<Row> rows;
  while (statement.executeStep()) rows.push_back(read(statement));
  return rows;
}

template <typename Row>
std::optional<Row> read_one(SQLite::Statement statement, Row (*read)(SQLite::Statement&)) {
  if (!statement.executeStep()) return std::nullopt;
  return read(statement);
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
    // The text holds no wildcard, and LIKE ignores the case of ASCII letters.
    found = find("d.uuid LIKE ?", std::string(reference) + "%");
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

Catalog::Catalog(const std::filesystem::path& file) {
  with_context(file.native(), [&] {
    guarded([&] {
      database_ = std::make_unique<SQLite::Database>(file.native(),
                                                     SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
      // FULL: in WAL mode each commit is synced. A step that we said is recorded must be there
      // after a power cut.
      database_->exec("PRAGMA journal_mode = WAL");
      database_->exec("PRAGMA synchronous = FULL");
      database_->exec("PRAGMA foreign_keys = ON");
      const int version = database_->execAndGet("PRAGMA user_version").getInt();
      if (version > kSchemaVersion) {
        throw Error(ErrorKind::kUnsupported,
                    "made by a newer version of convoy (catalog version {}, we know {})", version,
                    kSchemaVersion);
      }
      if (version == kSchemaVersion) return;
      SQLite::Transaction transaction(*database_);
      database_->exec(kCatalogSchema);
      database_->exec(fmt::format("PRAGMA user_version = {}", kSchemaVersion));
      transaction.commit();
    });
  });
}

Catalog::~Catalog() = default;

// --- Pool
// ------------------------------------------------------------------------------------------------------------

std::optional<PoolRow> Catalog::pool() {
  return guarded([&]() -> std::optional<PoolRow> {
    Access access(*this);
    SQLite::Statement row = access.query(
        "SELECT uuid, name, state, data_device, data_size, metadata_device, metadata_size, "
        "block_sectors,"
        "       transaction_id, default_size, default_filesystem FROM pool");
    if (!row.executeStep()) return std::nullopt;
    PoolRow pool;
    pool.uuid = uuid_at(row, 0);
    pool.name = row.getColumn(1).getString();
    pool.state = row.getColumn(2).getString() == "ready" ? PoolRow::State::kReady
                                                         : PoolRow::State::kCreating;
    pool.data_device = row.getColumn(3).getString();
    pool.data_size = unsigned_at(row, 4);
    pool.metadata_device = row.getColumn(5).getString();
    pool.metadata_size = unsigned_at(row, 6);
    pool.block_size = {unsigned_at(row, 7)};
    pool.transaction_id = unsigned_at(row, 8);
    pool.default_size = unsigned_at(row, 9);
    pool.default_filesystem = row.getColumn(10).getString();
    return pool;
  });
}

void Catalog::insert_pool(const PoolRow& pool) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "INSERT INTO pool (id, uuid, name, state, data_device, data_size, metadata_device, "
        "metadata_size, block_sectors,"
        "                  transaction_id, next_thin_id, default_size, default_filesystem)"
        " VALUES (1, ?, ?, 'creating', ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        pool.uuid, pool.name, pool.data_device, pool.data_size, pool.metadata_device,
        pool.metadata_size, pool.block_size.count, pool.transaction_id, pool.default_size,
        pool.default_filesystem);
    access.commit();
  });
}

void Catalog::remove_pool() {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM pool WHERE NOT EXISTS (SELECT 1 FROM device)");
    access.commit();
  });
}

void Catalog::set_pool_ready() {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET state = 'ready'");
    access.commit();
  });
}

void Catalog::set_pool_devices(const std::filesystem::path& data,
                               const std::filesystem::path& metadata) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET data_device = ?, metadata_device = ?", data, metadata);
    access.commit();
  });
}

void Catalog::set_pool_defaults(std::uint64_t size, const std::string& filesystem) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE pool SET default_size = ?, default_filesystem = ?", size, filesystem);
    access.commit();
  });
}

// --- Volumes and snapshots
// -------------------------------------------------------------------------------------------

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

template <typename Database>
void check_name_is_free(Database& access, const std::string& name) {
  SQLite::Statement row = access.query("SELECT kind, state FROM device WHERE name = ?", name);
  if (!row.executeStep()) return;
  const std::string kind = row.getColumn(0).getString();
  const DeviceState state = parse_state(row.getColumn(1).getString());
  throw Error(ErrorKind::kAlreadyExists, "a {} named '{}' {}", kind, name,
              state == DeviceState::kCreating   ? "is being created"
              : state == DeviceState::kDeleting ? "is still being deleted"
                                                : "exists already");
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
      "INSERT INTO device (uuid, name, kind, state, thin_id, size, created) VALUES (?, ?, ?, "
      "'creating', ?, ?, ?)",
      device.uuid, device.name, kind, device.thin_id, device.size,
      static_cast<std::uint64_t>(device.created.time_since_epoch().count()));
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
    insert_device(access, volume, "volume");
    access.execute("INSERT INTO volume (uuid, filesystem, lineage) VALUES (?, ?, ?)", volume.uuid,
                   volume.filesystem, volume.lineage);
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
    SQLite::Statement deleted = access.query("DELETE FROM intent RETURNING action, device");
    if (deleted.executeStep() && deleted.getColumn(0).getString() == "delete") {
      access.execute("DELETE FROM device WHERE uuid = ?", deleted.getColumn(1).getString());
    }
    deleted.reset();
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

void Catalog::set_creation_time(const Uuid& snapshot, std::uint32_t creation_time) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE snapshot SET creation_time = ? WHERE uuid = ?", creation_time, snapshot);
    access.commit();
  });
}

// --- Mounts
// ----------------------------------------------------------------------------------------------------------

std::vector<VolumeUser> Catalog::users(const Uuid& volume) {
  return guarded([&] {
    Access access(*this);
    SQLite::Statement row = access.query(
        "SELECT kind, id, boot_id FROM volume_user WHERE volume = ? ORDER BY kind, id", volume);
    std::vector<VolumeUser> users;
    while (row.executeStep()) {
      const bool command = row.getColumn(0).getString() == "command";
      users.push_back({command ? VolumeUser::Kind::kCommand : VolumeUser::Kind::kDocker,
                       row.getColumn(1).getString(), row.getColumn(2).getString()});
    }
    return users;
  });
}

void Catalog::add_user(const Uuid& volume, const VolumeUser& user,
                       const std::filesystem::path& mountpoint) {
  guarded([&] {
    Access access(*this);
    access.execute(
        "INSERT OR REPLACE INTO volume_user (volume, kind, id, boot_id) VALUES (?, ?, ?, ?)",
        volume, to_text(user.kind), user.id, user.boot_id);
    access.execute("UPDATE volume SET mountpoint = ? WHERE uuid = ?", mountpoint, volume);
    access.commit();
  });
}

void Catalog::remove_user(const Uuid& volume, VolumeUser::Kind kind, const std::string& id) {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM volume_user WHERE volume = ? AND kind = ? AND id = ?", volume,
                   to_text(kind), id);
    access.commit();
  });
}

void Catalog::forget_users_before(const std::string& boot_id) {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM volume_user WHERE kind = 'docker' AND boot_id <> ?", boot_id);
    access.commit();
  });
}

void Catalog::clear_mountpoint(const Uuid& volume) {
  guarded([&] {
    Access access(*this);
    access.execute("UPDATE volume SET mountpoint = NULL WHERE uuid = ?", volume);
    access.commit();
  });
}

// --- Backups
// ---------------------------------------------------------------------------------------------------------

std::optional<Uuid> Catalog::store_at(const std::string& url) {
  return guarded([&]() -> std::optional<Uuid> {
    Access access(*this);
    SQLite::Statement row = access.query("SELECT store FROM destination WHERE url = ?", url);
    if (!row.executeStep()) return std::nullopt;
    return uuid_at(row, 0);
  });
}

void Catalog::remember_store(const std::string& url, const Uuid& store) {
  guarded([&] {
    Access access(*this);
    access.execute("INSERT OR REPLACE INTO destination (url, store) VALUES (?, ?)", url, store);
    access.commit();
  });
}

void Catalog::add_backup(const Uuid& backup, const Uuid& store, const Uuid& snapshot) {
  guarded([&] {
    Access access(*this);
    access.execute("INSERT OR REPLACE INTO backup (backup, store, snapshot) VALUES (?, ?, ?)",
                   backup, store, snapshot);
    access.commit();
  });
}

void Catalog::forget_backup(const Uuid& backup) {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM backup WHERE backup = ?", backup);
    access.commit();
  });
}

std::optional<Catalog::KnownBackup> Catalog::newest_backup(const Uuid& store, const Uuid& volume) {
  return guarded([&]() -> std::optional<KnownBackup> {
    Access access(*this);
    SQLite::Statement row = access.query(
        "SELECT b.backup, b.snapshot FROM backup b"
        "  JOIN snapshot s ON s.uuid = b.snapshot JOIN device d ON d.uuid = s.uuid"
        " WHERE b.store = ? AND s.volume = ? AND d.state = 'ready' ORDER BY b.backup DESC LIMIT 1",
        store, volume);
    if (!row.executeStep()) return std::nullopt;
    return KnownBackup{uuid_at(row, 0), uuid_at(row, 1)};
  });
}

}  // namespace convoy
