// Which backups a store has.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backup/backup_record.h"
#include "backup/store.h"
#include "base/error.h"
#include "base/uuid.h"

namespace convoy {

// Throws kNotFound if the store has no such backup, kCorrupt if its record is damaged or that of
// another, kUnsupported if it is of another version of the format.
BackupRecord read_backup(const Store& store, const Uuid& lineage, const Uuid& backup);

// As read_backup, of one that is known not to be void, such as those that backups_of names.
BackupRecord read_listed_backup(const Store& store, const Uuid& lineage, const Uuid& backup);

// One that was listed, and its record, or the reason why there is none: what read_listed_backup
// throws.
struct ListedBackup {
  Uuid lineage;
  Uuid backup;
  std::optional<BackupRecord> record = std::nullopt;
  std::optional<Error> error = std::nullopt;
};

// As read_listed_backup of each, many at once. `visit` is called with one after the other, in their
// order, on any thread; there is one record at a time. Throws what the store and `visit` throw.
void read_listed_backups(const Store& store, std::vector<ListedBackup> backups,
                         const std::function<void(ListedBackup& backup)>& visit);

// The UUIDs of a lineage's backups, ascending: by time. Reads none of them.
std::vector<Uuid> backups_of(const Store& store, const Uuid& lineage);

// Those that were committed after their leases had been revoked. They are none, though their
// records are there until their writers remove them.
std::vector<Uuid> void_backups_of(const Store& store, const Uuid& lineage);

// The lineages that have, or had, a backup, ascending.
std::vector<Uuid> lineages_of(const Store& store);

struct BackupList {
  std::vector<BackupInfo> backups;  // ascending by lineage and then by time
  std::vector<Error> damaged;       // one for each backup that can't be read
};

// The backups of all lineages, or of those volumes that had this name when they were backed up. One
// damaged backup does not hide the others. Reads every backup's JSON.
BackupList list_backups(const Store& store, const std::optional<std::string>& volume_name);

}  // namespace convoy
