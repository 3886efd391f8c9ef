#include "backup/backups.h"

#include <map>
#include <utility>

#include "backup/layout.h"
#include "backup/lease.h"
#include "backup/zstd_text.h"
#include "base/bytes.h"
#include "base/limits.h"

namespace convoy {
namespace {

void list_lineage(const Store& store, const Uuid& lineage,
                  const std::optional<std::string>& volume_name, BackupList& list) {
  for (const Uuid& backup : backups_of(store, lineage)) {
    try {
      BackupInfo info = read_listed_backup(store, lineage, backup).info;
      if (!volume_name || info.source.volume.name == *volume_name) {
        list.backups.push_back(std::move(info));
      }
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kNotFound) continue;  // deleted since it was listed
      if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kUnsupported) throw;
      list.damaged.push_back(error);
    }
  }
}

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
      records.empty() ? std::map<Uuid, Timestamp>() : list_revocations(store, lineage);
  std::vector<Uuid> backups;
  for (const auto& [backup, committed] : records) {
    const auto revoked = revocations.find(backup);
    if ((revoked != revocations.end() && committed > revoked->second) == are_void)
      backups.push_back(backup);
  }
  return backups;
}

}  // namespace

BackupRecord read_backup(const Store& store, const Uuid& lineage, const Uuid& backup) {
  BackupRecord record = read_listed_backup(store, lineage, backup);
  if (const auto revoked = revocation_of(store, lineage, backup)) {
    const auto info = store.objects().head(backup_key(lineage, backup));
    if (!info || info->modified > *revoked) refuse_missing(lineage, backup);
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
  BackupList list;
  for (const Uuid& lineage : lineages_of(store)) list_lineage(store, lineage, volume_name, list);
  return list;
}

}  // namespace convoy
