#include "backup/lineage_survey.h"

#include <algorithm>
#include <vector>

#include "backup/backups.h"
#include "backup/lease.h"
#include "backup/progress.h"
#include "base/error.h"

namespace convoy {

void LineageSurvey::look(const std::stop_token& stop, const std::optional<Timestamp>& dead_at) {
  const std::vector<FoundLease> leases = list_leases(store_, lineage_);
  look_at_backups(stop);
  writing_.clear();
  may_need_any_ = false;
  for (const FoundLease& lease : leases) {
    if (dead_at && is_dead(lease, *dead_at, store_.times())) continue;
    writing_.insert(lease.backup);
    // What was deleted before anybody here could read it may refer to anything; so may a backup
    // that never was one.
    if (!lease.record || !std::ranges::all_of(lease.record->builds_on, [&](const Uuid& backup) {
          return read_.contains(backup);
        }))
      may_need_any_ = true;
  }
}

void LineageSurvey::look_at_backups(const std::stop_token& stop) {
  backups_.clear();
  for (const Uuid& backup : backups_of(store_, lineage_)) {
    if (backup == without_) continue;
    backups_.insert(backup);
    if (read_.contains(backup)) continue;
    check_stop(stop, work_);
    try {
      const BackupRecord record = read_listed_backup(store_, lineage_, backup);
      packs_.insert(record.packs.begin(), record.packs.end());
      if (on_backup_) on_backup_(record);
      read_.insert(backup);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound) throw;
      backups_.erase(backup);  // deleted since it was listed
    }
  }
}

}  // namespace convoy
