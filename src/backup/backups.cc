#include "backup/backups.h"

#include "backup/layout.h"
#include "base/limits.h"

namespace convoy {
namespace {

void list_lineage(const Store& store, const Uuid& lineage,
                  const std::optional<std::string>& volume_name, BackupList& list) {
  for (const Uuid& backup : backups_of(store, lineage)) {
    try {
      BackupInfo info = read_backup(store, lineage, backup).info;
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

}  // namespace

BackupRecord read_backup(const Store& store, const Uuid& lineage, const Uuid& backup) {
  const std::string key = json_key(lineage, LineagePart::kBackups, backup);
  std::vector<std::byte> text;
  try {
    text = store.objects().get(key, kMaxStoreJson);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    throw Error(ErrorKind::kNotFound, "the store has no backup {} of the volume {}",
                backup.to_string(), lineage.to_string());
  }
  return with_context(key, [&] {
    BackupRecord record = parse_record(text);
    if (record.info.uuid != backup || record.info.source.lineage != lineage) {
      throw Error(ErrorKind::kCorrupt, "it describes another backup");
    }
    return record;
  });
}

std::vector<Uuid> backups_of(const Store& store, const Uuid& lineage) {
  std::vector<Uuid> backups;
  store.objects().list(prefix_of(lineage, LineagePart::kBackups), [&](const ObjectInfo& info) {
    if (const auto backup = parse_json_key(info.key)) backups.push_back(*backup);
  });
  return backups;
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
