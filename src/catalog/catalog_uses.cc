// Who uses which mount, and which snapshot is in which store as which backup.
#include "base/error.h"
#include "catalog/access.h"
#include "catalog/catalog.h"

namespace convoy {
// --- Mounts ---

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
    insert_user(access, volume, user, mountpoint);
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

void Catalog::remove_users(const Uuid& volume) {
  guarded([&] {
    Access access(*this);
    access.execute("DELETE FROM volume_user WHERE volume = ?", volume);
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

// --- Backups ---

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
