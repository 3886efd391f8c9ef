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
// Not worth the threads.
constexpr std::size_t kFew = 2;

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
  const auto revocations = records.empty()
                               ? std::map<Uuid, Timestamp>()
                               : list_leases_and_revocations(store, lineage).revocations;
  std::vector<Uuid> backups;
  for (const auto& [backup, committed] : records) {
    const auto revoked = revocations.find(backup);
    if ((revoked != revocations.end() && is_void(store, committed, revoked->second)) == are_void)
      backups.push_back(backup);
  }
  return backups;
}

std::vector<std::byte> get_object(const Store& store, const Uuid& lineage, const Uuid& backup) {
  try {
    return store.objects().get(backup_key(lineage, backup), kMaxStoreJson);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNotFound) throw;
    refuse_missing(lineage, backup);
  }
}

BackupRecord parse_object(const Uuid& lineage, const Uuid& backup,
                          std::span<const std::byte> object) {
  return with_context(backup_key(lineage, backup), [&] {
    const std::string text = decompress_text(object, kMaxStoreJson);
    BackupRecord record = parse_record(as_bytes(text));
    if (record.info.uuid != backup || record.info.source.lineage != lineage) {
      throw Error(ErrorKind::kCorrupt, "it describes another backup");
    }
    return record;
  });
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
  return parse_object(lineage, backup, get_object(store, lineage, backup));
}

void read_listed_backups(const Store& store, std::vector<ListedBackup> backups,
                         const std::function<void(ListedBackup& backup)>& visit) {
  struct Fetched {
    ListedBackup listed;
    std::vector<std::byte> object = {};
  };
  const auto attempt = [](ListedBackup& listed, const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound && error.kind() != ErrorKind::kCorrupt &&
          error.kind() != ErrorKind::kUnsupported)
        throw;
      listed.error = error;
    }
  };
  const auto fetch = [&](Fetched& fetched) {
    attempt(fetched.listed, [&] {
      fetched.object = get_object(store, fetched.listed.lineage, fetched.listed.backup);
    });
  };
  // One after the other: of a large volume a record takes many times the memory of its object.
  const auto finish = [&](Fetched& fetched) {
    ListedBackup& listed = fetched.listed;
    if (!listed.error)
      attempt(listed,
              [&] { listed.record = parse_object(listed.lineage, listed.backup, fetched.object); });
    visit(listed);
    listed.record.reset();
  };
  if (backups.size() <= kFew) {
    for (ListedBackup& backup : backups) {
      Fetched fetched{.listed = std::move(backup)};
      fetch(fetched);
      finish(fetched);
    }
    return;
  }
  OrderedWorkers<Fetched> workers(
      kReadsAtOnce, std::size_t{2} * kReadsAtOnce,
      [&](Fetched& fetched, unsigned) { fetch(fetched); }, finish);
  for (ListedBackup& backup : backups) workers.add({.listed = std::move(backup)});
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
  const std::vector<Uuid> lineages = lineages_of(store);
  std::vector<ListedBackup> listed;
  OrderedWorkers<Lineage> workers(
      std::min<unsigned>(kReadsAtOnce, static_cast<unsigned>(lineages.size())),
      std::size_t{2} * kReadsAtOnce,
      [&](Lineage& lineage, unsigned) { lineage.backups = backups_of(store, lineage.lineage); },
      [&](const Lineage& lineage) {
        for (const Uuid& backup : lineage.backups)
          listed.push_back({.lineage = lineage.lineage, .backup = backup});
      });
  for (const Uuid& lineage : lineages) workers.add({.lineage = lineage, .backups = {}});
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
