#include "backup/backups.h"

#include <algorithm>
#include <map>
#include <utility>

#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/ordered_workers.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/limits.h"

namespace convoy {
namespace {

// Small requests that wait for the store at once: as many as S3 has connections by default.
constexpr unsigned kReadsAtOnce = 16;

[[noreturn]] void refuse_missing(const Uuid& lineage, const Uuid& backup) {
  throw Error(ErrorKind::kNotFound, "the store has no backup {} of the volume {}",
              backup.to_string(), lineage.to_string());
}

// Of the records that are there, those that are void, or those that are not.
std::vector<Uuid> list_records(const Store& store, const Uuid& lineage, bool are_void) {
  std::vector<std::pair<Uuid, Timestamp>> records;
  store.objects().list(prefix_of(lineage, LineagePart::kBackups), [&](const ObjectInfo& info) {
    if (const auto backup = parse_backup_key(info.key))
      records.emplace_back(*backup, info.modified);
  });
  // Listed after the records: what is void was so before it was put.
  const auto revocations =
      records.empty() ? std::map<Uuid, Timestamp>() : list_all_leases(store, lineage).revocations;
  std::vector<Uuid> backups;
  for (const auto& [backup, committed] : records) {
    const auto revoked = revocations.find(backup);
    if ((revoked != revocations.end() && is_void(store, committed, revoked->second)) == are_void)
      backups.push_back(backup);
  }
  return backups;
}

}  // namespace

BackupRecord read_backup(const Store& store, const Uuid& lineage, const Uuid& backup) {
  BackupRecord record = read_listed_backup(store, lineage, backup);
  if (const auto revoked = revocation_of(store, lineage, backup)) {
    const auto info = store.objects().head(backup_key(lineage, backup));
    if (!info || is_void(store, info->modified, *revoked)) refuse_missing(lineage, backup);
  }
  return record;
}

BackupRecord read_listed_backup(const Store& store, const Uuid& lineage, const Uuid& backup) {
  const std::string key = backup_key(lineage, backup);
  std::vector<std::byte> bytes;
  try {
    bytes = store.objects().get(key, kMaxStoreJson);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    refuse_missing(lineage, backup);
  }
  return with_context(key, [&] {
    const std::string text = decompress_text(bytes, kMaxStoreJson);
    BackupRecord record = parse_record(as_bytes(text));
    if (record.info.uuid != backup || record.info.source.lineage != lineage) {
      throw Error(ErrorKind::kCorrupt, "it describes another backup");
    }
    return record;
  });
}

void read_listed_backups(const Store& store, std::vector<ListedBackup> backups,
                         const std::function<void(ListedBackup& backup)>& visit) {
  const auto read = [&](ListedBackup& listed) {
    try {
      listed.record = read_listed_backup(store, listed.lineage, listed.backup);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound && error.kind() != ErrorKind::kCorrupt &&
          error.kind() != ErrorKind::kUnsupported)
        throw;
      listed.error = error;
    }
  };
  if (backups.size() == 1) {  // not worth a thread
    read(backups.front());
    visit(backups.front());
    return;
  }
  OrderedWorkers<ListedBackup> workers(
      std::min<unsigned>(kReadsAtOnce, static_cast<unsigned>(backups.size())),
      std::size_t{2} * kReadsAtOnce, [&](ListedBackup& listed, unsigned) { read(listed); }, visit);
  for (ListedBackup& backup : backups) workers.add(std::move(backup));
  workers.wait();
}

std::vector<Uuid> backups_of(const Store& store, const Uuid& lineage) {
  return list_records(store, lineage, false);
}

std::vector<Uuid> void_backups_of(const Store& store, const Uuid& lineage) {
  return list_records(store, lineage, true);
}

std::vector<Uuid> lineages_of(const Store& store) {
  std::vector<Uuid> lineages;
  for (const std::string& name : store.objects().list_directories(kLineagesPrefix)) {
    if (const auto lineage = parse_key_uuid(name)) lineages.push_back(*lineage);
  }
  return lineages;
}

BackupList list_backups(const Store& store, const std::optional<std::string>& volume_name) {
  struct Lineage {
    Uuid lineage;
    std::vector<Uuid> backups;
  };
  std::vector<ListedBackup> listed;
  OrderedWorkers<Lineage> workers(
      kReadsAtOnce, std::size_t{2} * kReadsAtOnce,
      [&](Lineage& lineage, unsigned) { lineage.backups = backups_of(store, lineage.lineage); },
      [&](const Lineage& lineage) {
        for (const Uuid& backup : lineage.backups)
          listed.push_back({.lineage = lineage.lineage, .backup = backup});
      });
  for (const Uuid& lineage : lineages_of(store)) workers.add({.lineage = lineage, .backups = {}});
  workers.wait();

  BackupList list;
  read_listed_backups(store, std::move(listed), [&](ListedBackup& backup) {
    if (backup.record) {
      BackupInfo& info = backup.record->info;
      if (!volume_name || info.source.volume.name == *volume_name)
        list.backups.push_back(std::move(info));
    } else if (backup.error->kind() != ErrorKind::kNotFound) {  // else deleted since
      list.damaged.push_back(std::move(*backup.error));
    }
  });
  return list;
}

}  // namespace convoy
