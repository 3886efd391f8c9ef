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
  std::vector<ListedBackup> unread;
  for (const Uuid& backup : backups_of(store_, lineage_)) {
    if (backup == without_) continue;
    backups_.insert(backup);
    if (!read_.contains(backup)) unread.push_back({.lineage = lineage_, .backup = backup});
  }
  if (unread.empty()) return;
  read_listed_backups(store_, std::move(unread), [&](const ListedBackup& listed) {
    check_stop(stop, work_);
    if (listed.error) {
      if (listed.error->kind() != ErrorKind::kNotFound) throw Error(*listed.error);
      backups_.erase(listed.backup);  // deleted since it was listed
      return;
    }
    packs_.insert(listed.record->packs.begin(), listed.record->packs.end());
    if (on_backup_) on_backup_(*listed.record);
    read_.insert(listed.backup);
  });
}

}  // namespace convoy
